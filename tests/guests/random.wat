;; Wants more random bytes than are given at once.
(func (export "call") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $delete-victim)
  (call $random (i32.const -1) (i32.const 64))
  (i32.const 256))
