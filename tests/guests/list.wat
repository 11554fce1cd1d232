;; Answers with a list of 100 MiB.
(func (export "call") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $delete-victim)
  (drop (memory.grow (i32.const 200)))
  (i32.store (i32.const 272) (i32.const 0))
  (i32.store (i32.const 276) (i32.const 0x6400000))
  (i32.const 256))
