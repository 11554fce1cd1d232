;; Exports the core function `call` as a timer.
(func $tick (param "name" string) (result (result (error string)))
  (canon lift (core func $guest "call") (memory $mem) (realloc $realloc)))
(instance $timer (export "tick" (func $tick)))
(export "conclave:plugin/timer@0.1.0" (instance $timer))
