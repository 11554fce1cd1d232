;; An `after` trigger on the znode that it sets: it is its own reason.
(func (export "call") (param i32 i32 i32 i32) (result i32)
  (call $set (i32.const 16) (i32.const 7) (i32.const 16) (i32.const 7) (i32.const 0) (i64.const 0) (i32.const 1024))
  (i32.const 256))
