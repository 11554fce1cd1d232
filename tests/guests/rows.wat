;; Writes a million rows: znodes that it creates one after the other.
(func (export "call") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (local $left i32)
  (call $delete-victim)
  (local.set $left (i32.const 1000000))
  (loop $again
    ;; Sequential, below the root: /victim0000000001 and so on.
    (call $create (i32.const 16) (i32.const 7) (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 1024))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (local.get $left)))
  (i32.const 256))
