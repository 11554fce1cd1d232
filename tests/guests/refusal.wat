;; Refuses after a write, in words that are far too many.
(func (export "call") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $delete-victim)
  (i32.store (i32.const 256) (i32.const 1))
  (i32.store (i32.const 264) (i32.const 65536))
  (i32.store (i32.const 268) (i32.const 65536))
  (i32.const 256))
