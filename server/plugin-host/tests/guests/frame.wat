;; What every guest here has in common: a component with one procedure, whose core function is put in at its end.
(component
  (import "conclave:plugin/types@0.1.0" (instance $types
    (type $refusal' (record (field "code" string) (field "message" string)))
    (export "refusal" (type $refusal (eq $refusal')))))
  (alias export $types "refusal" (type $refusal))
  (import "conclave:plugin/tree@0.1.0" (instance $tree
    (alias outer 1 $refusal (type $r'))
    (export "refusal" (type $r (eq $r')))
    (export "delete" (func (param "p" string) (param "if-version" (option u64)) (result (result (error $r)))))))
  (import "conclave:plugin/context@0.1.0" (instance $context
    (export "now-ms" (func (result u64)))
    (export "random" (func (param "n" u32) (result (list u8))))))
  (core module $memory
    (memory (export "memory") 2)
    (data (i32.const 16) "/victim")
    (global $next (mut i32) (i32.const 1024))
    ;; Never frees, and starts again when it is at the end: a guest that lives for one call.
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (if (i32.gt_u (i32.add (local.get $at) (local.get 3)) (i32.const 131072))
        (then (local.set $at (i32.const 1024))))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
  (core func $delete (canon lower (func $tree "delete")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $now-ms (canon lower (func $context "now-ms")))
  (core func $random (canon lower (func $context "random")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core module $guest
    (import "host" "memory" (memory 1))
    (import "host" "delete" (func $delete (param i32 i32 i32 i64 i32)))
    (import "host" "now-ms" (func $now-ms (result i64)))
    (import "host" "random" (func $random (param i32 i32)))
    (func $delete-victim
      (call $delete (i32.const 16) (i32.const 7) (i32.const 0) (i64.const 0) (i32.const 64)))
    {{call}})
  (core instance $guest (instantiate $guest (with "host" (instance
    (export "memory" (memory $memory "memory"))
    (export "delete" (func $delete))
    (export "now-ms" (func $now-ms))
    (export "random" (func $random))))))
  (type $answer' (variant (case "done" (list u8))))
  (func $call (param "name" string) (param "args" (list u8)) (result (result $answer' (error string)))
    (canon lift (core func $guest "call") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (component $named
    (type $a' (variant (case "done" (list u8))))
    (import "import-answer" (type $a (eq $a')))
    (import "import-call" (func $f
      (param "name" string) (param "args" (list u8)) (result (result $a (error string)))))
    (export $answer "answer" (type $a))
    (export "call" (func $f) (func
      (param "name" string) (param "args" (list u8)) (result (result $answer (error string))))))
  (instance $procedures (instantiate $named
    (with "import-answer" (type $answer')) (with "import-call" (func $call))))
  (export "conclave:plugin/procedures@0.1.0" (instance $procedures)))
