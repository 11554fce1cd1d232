;; Takes memory, more and more of it.
(func (export "call") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $delete-victim)
  (loop $again
    (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
  (i32.const 256))
