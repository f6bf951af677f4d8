//! Chance that comes again for the process that this is preloaded into: `getrandom` gives bytes that follow from
//! FLOWPROXY_TEST_CHANCE, the thread's name and how often the thread has asked. What is drawn for TLS comes from
//! elsewhere and stays as it was.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_uint, c_ulong, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};

unsafe extern "C" {
    fn prctl(option: c_int, name: *mut c_char, _: c_ulong, _: c_ulong, _: c_ulong) -> c_int;
}

const GET_NAME: c_int = 16;

thread_local! {
    static TIMES: Cell<u64> = const { Cell::new(0) };
}

/// # Safety
/// As the C library's: `to` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(to: *mut c_void, length: usize, _flags: c_uint) -> isize {
    let mut name = [0; 16];
    // SAFETY: there is room for a name.
    unsafe { prctl(GET_NAME, name.as_mut_ptr(), 0, 0, 0) };
    let times = TIMES.with(|times| times.replace(times.get() + 1));
    for place in 0..length {
        let mut hasher = DefaultHasher::new();
        (std::env::var_os("FLOWPROXY_TEST_CHANCE"), name, times, place).hash(&mut hasher);
        // SAFETY: the caller's promise.
        unsafe { to.cast::<u8>().add(place).write(hasher.finish() as u8) };
    }
    length as isize
}
