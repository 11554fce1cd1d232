//! Randomness for the hash tables of libraries, in a component: from the transaction, so that it imports nothing else.
#![allow(unsafe_code, reason = "getrandom's interface for a source of one's own is a C function")]

use getrandom::Error;

/// What `getrandom` calls when it is built with `getrandom_backend="custom"`, as `cargo xtask plugins` does.
///
/// Hash tables live for one run here, and their order reaches nobody: numbers that always are the same do.
///
/// # Safety
/// `to` has room for `bytes` bytes.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(to: *mut u8, bytes: usize) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::write_bytes(to, 0x5a, bytes) };
    Ok(())
}
