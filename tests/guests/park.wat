;; Parks, and its manifest does not say that it may.
(func (export "call") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $delete-victim)
  (i32.store (i32.const 264) (i32.const 1))
  (i32.const 256))
