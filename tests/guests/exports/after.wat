;; Exports the core function `call` as a trigger after changes.
(func $react (param "trigger" string) (param "changes" (list $change)) (result (result (error string)))
  (canon lift (core func $guest "call") (memory $mem) (realloc $realloc)))
(component $named
  (type $kind' (enum "created" "data" "deleted" "acl"))
  (import "import-kind" (type $kind (eq $kind')))
  (type $change' (record (field "kind" $kind) (field "path" string) (field "version" u64)
    (field "data" (option (list u8))) (field "previous" (option (list u8)))))
  (import "import-change" (type $change (eq $change')))
  (import "import-react" (func $f (param "trigger" string) (param "changes" (list $change))
    (result (result (error string)))))
  (export $change2 "change" (type $change))
  (export "react" (func $f) (func (param "trigger" string) (param "changes" (list $change2))
    (result (result (error string))))))
(instance $after (instantiate $named
  (with "import-kind" (type $change-kind)) (with "import-change" (type $change)) (with "import-react" (func $react))))
(export "conclave:plugin/after@0.1.0" (instance $after))
