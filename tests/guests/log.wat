;; Logs a thousand lines.
(func (export "call") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (local $left i32)
  (call $delete-victim)
  (local.set $left (i32.const 1000))
  (loop $again
    (call $log (i32.const 1) (i32.const 16) (i32.const 7))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (local.get $left)))
  (i32.const 256))
