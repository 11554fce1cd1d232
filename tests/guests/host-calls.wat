;; Asks what time it is, again and again.
(func (export "call") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $delete-victim)
  (loop $again
    (drop (call $now-ms))
    (br $again))
  unreachable)
