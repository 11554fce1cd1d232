;; Exports the core function `call` as what runs when a session ends.
(type $session' (record (field "id" u64) (field "principal" string) (field "expired" bool)))
(func $ended (param "s" $session') (result (result (error string)))
  (canon lift (core func $guest "call") (memory $mem) (realloc $realloc)))
(component $named
  (type $session' (record (field "id" u64) (field "principal" string) (field "expired" bool)))
  (import "import-session" (type $session (eq $session')))
  (import "import-ended" (func $f (param "s" $session) (result (result (error string)))))
  (export $session2 "session" (type $session))
  (export "ended" (func $f) (func (param "s" $session2) (result (result (error string))))))
(instance $session-end (instantiate $named
  (with "import-session" (type $session')) (with "import-ended" (func $ended))))
(export "conclave:plugin/session-end@0.1.0" (instance $session-end))
