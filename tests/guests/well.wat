;; Deletes /victim and says "" : what the others would be if they behaved.
(func (export "call") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $delete-victim)
  (i32.const 256))
