;; Refuses with a string that is not UTF-8.
(func (export "call") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $delete-victim)
  (i32.store8 (i32.const 512) (i32.const 0xff))
  (i32.store (i32.const 256) (i32.const 1))
  (i32.store (i32.const 264) (i32.const 512))
  (i32.store (i32.const 268) (i32.const 1))
  (i32.const 256))
