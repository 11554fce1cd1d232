;; Does what the name of the procedure begins with to the path that is its argument, and refuses in the tree's words: a guest
;; that behaves, for tests of what it may. Its arguments are {"p": PATH}: the head of the text is at 3.
(func (export "call") (param $name i32) (param $length i32) (param $args i32) (param i32 i32 i32 i32 i32 i32 i32 i32)
  (result i32)
  (local $op i32) (local $p i32) (local $n i32) (local $at i32)
  (local.set $op (i32.load8_u (local.get $name)))
  (local.set $n (i32.load8_u offset=3 (local.get $args)))
  (local.set $p (i32.add (local.get $args) (i32.const 4)))
  (if (i32.eq (local.get $n) (i32.const 0x78))
    (then
      (local.set $n (i32.load8_u offset=4 (local.get $args)))
      (local.set $p (i32.add (local.get $args) (i32.const 5))))
    (else (local.set $n (i32.and (local.get $n) (i32.const 0x1f)))))
  ;; Where the refusal lies in the answer: it depends on how what stands there otherwise is aligned.
  (local.set $at (i32.const 1032))
  (if (i32.eq (local.get $op) (i32.const 103)) ;; g: get
    (then (call $get (local.get $p) (local.get $n) (i32.const 1024))))
  (if (i32.eq (local.get $op) (i32.const 101)) ;; e: exists
    (then (call $exists (local.get $p) (local.get $n) (i32.const 1024))))
  (if (i32.eq (local.get $op) (i32.const 108)) ;; l: list
    (then
      (call $children (local.get $p) (local.get $n) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const 10) (i32.const 1) (i32.const 1024))
      (local.set $at (i32.const 1028))))
  (if (i32.eq (local.get $op) (i32.const 99)) ;; c: create
    (then
      (call $create (local.get $p) (local.get $n) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 1024))))
  (if (i32.eq (local.get $op) (i32.const 112)) ;; p: create with parents
    (then
      (call $create (local.get $p) (local.get $n) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 1) (i32.const 0) (i32.const 1024))))
  (if (i32.eq (local.get $op) (i32.const 111)) ;; o: create or set
    (then
      (call $create (local.get $p) (local.get $n) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 1) (i32.const 1024))))
  (if (i32.eq (local.get $op) (i32.const 115)) ;; s: set
    (then
      (call $set (local.get $p) (local.get $n) (i32.const 16) (i32.const 7) (i32.const 0) (i64.const 0) (i32.const 1024))))
  (if (i32.eq (local.get $op) (i32.const 100)) ;; d: delete
    (then
      (call $delete (local.get $p) (local.get $n) (i32.const 0) (i64.const 0) (i32.const 1024))
      (local.set $at (i32.const 1028))))
  (if (i32.eq (local.get $op) (i32.const 116)) ;; t: delete the tree
    (then (call $delete-tree (local.get $p) (local.get $n) (i32.const 1024))))
  (i32.store8 (i32.const 256) (i32.load8_u (i32.const 1024)))
  ;; The answer is a variant: its case, and the bytes behind it; a refusal is a text right there.
  (if (i32.load8_u (i32.const 1024))
    (then
      (i32.store (i32.const 264) (i32.load offset=8 (local.get $at)))
      (i32.store (i32.const 268) (i32.load offset=12 (local.get $at)))))
  (i32.const 256))
