;; Exports the core function `call` as a query.
(func $query (param "name" string) (param "args" (list u8)) (result (result (list u8) (error string)))
  (canon lift (core func $guest "call") (memory $mem) (realloc $realloc)))
(instance $queries (export "query" (func $query)))
(export "conclave:plugin/queries@0.1.0" (instance $queries))
