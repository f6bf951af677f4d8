//! A wall clock of its own for the process that this is preloaded into: `clock_gettime` as the C library has it, but
//! with the seconds added that stand in the file that FLOWPROXY_TEST_CLOCK names. Clocks that nobody sets are left alone.

use std::ffi::{c_int, c_long};

#[repr(C)]
pub struct TimeSpec {
    seconds: i64,
    nanoseconds: c_long,
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

#[cfg(target_arch = "x86_64")]
const CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const CLOCK_GETTIME: c_long = 113;
const CLOCK_REALTIME: c_int = 0;
const CLOCK_REALTIME_COARSE: c_int = 5;

/// # Safety
/// As the C library's: `time` points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut TimeSpec) -> c_int {
    // SAFETY: the caller's promise is the kernel's too.
    let result = unsafe { syscall(CLOCK_GETTIME, clock, time) } as c_int;
    if result == 0 && matches!(clock, CLOCK_REALTIME | CLOCK_REALTIME_COARSE) {
        // SAFETY: the kernel has written there.
        unsafe { (*time).seconds += shift() };
    }
    result
}

fn shift() -> i64 {
    let file = std::env::var_os("FLOWPROXY_TEST_CLOCK");
    let text = file.and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
