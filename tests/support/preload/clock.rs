//! Clocks of its own for the process that this is preloaded into: `clock_gettime` as the C library has it, but with the
//! seconds added that stand in the files that FLOWPROXY_TEST_CLOCK (the wall clock) and FLOWPROXY_TEST_UPTIME (the one
//! that nobody sets, by which waits are measured) name.
//!
//! The standard library waits on futexes until a time of the latter clock, which the kernel knows as it is: `syscall`
//! gives it that one.

use std::arch::asm;
use std::ffi::{c_int, c_long};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct TimeSpec {
    seconds: i64,
    nanoseconds: c_long,
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

#[cfg(target_arch = "x86_64")]
mod numbers {
    pub const CLOCK_GETTIME: isize = 228;
    pub const FUTEX: isize = 202;
}
#[cfg(target_arch = "aarch64")]
mod numbers {
    pub const CLOCK_GETTIME: isize = 113;
    pub const FUTEX: isize = 98;
}

const CLOCK_REALTIME: c_int = 0;
const CLOCK_MONOTONIC: c_int = 1;
const CLOCK_REALTIME_COARSE: c_int = 5;
const CLOCK_MONOTONIC_COARSE: c_int = 6;
/// The operation's bits without flags, and the one that waits until a time.
const OPERATION: isize = 0x7f;
const WAIT_BITSET: isize = 9;
const OF_WALL_CLOCK: isize = 0x100;

/// # Safety
/// As the C library's: `time` points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut TimeSpec) -> c_int {
    // SAFETY: the caller's promise is the kernel's too.
    let result = unsafe { kernel([numbers::CLOCK_GETTIME, clock as isize, time as isize, 0, 0, 0, 0]) };
    let shift = match clock {
        CLOCK_REALTIME | CLOCK_REALTIME_COARSE => shift("FLOWPROXY_TEST_CLOCK"),
        CLOCK_MONOTONIC | CLOCK_MONOTONIC_COARSE => shift("FLOWPROXY_TEST_UPTIME"),
        _ => 0,
    };
    if result == 0 {
        // SAFETY: the kernel has written there.
        unsafe { (*time).seconds += shift };
    }
    result as c_int
}

/// The C library's takes as many values as its call has; those that are not given are not looked at.
///
/// # Safety
/// That of the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: isize,
    a: isize,
    b: isize,
    c: isize,
    d: isize,
    e: isize,
    f: isize,
) -> isize {
    let waits_until = number == numbers::FUTEX && b & OPERATION == WAIT_BITSET && b & OF_WALL_CLOCK == 0;
    if !waits_until || d == 0 {
        // SAFETY: the caller's promise.
        return unsafe { kernel([number, a, b, c, d, e, f]) };
    }
    // SAFETY: it is where the call's time is.
    let mut until = unsafe { *(d as *const TimeSpec) };
    until.seconds -= shift("FLOWPROXY_TEST_UPTIME");
    // SAFETY: the caller's promise, and the time outlives the call.
    unsafe { kernel([number, a, b, c, &raw const until as isize, e, f]) }
}

/// What the kernel says; of a fault -1, and `errno` is set.
///
/// # Safety
/// That of the call.
unsafe fn kernel([number, a, b, c, d, e, f]: [isize; 7]) -> isize {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: registers as the kernel has them; it spoils two of them.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: registers as the kernel has them.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            in("x5") f, options(nostack));
    }
    if !(-4095..0).contains(&result) {
        return result;
    }
    // SAFETY: the place of this thread.
    unsafe { *__errno_location() = -result as c_int };
    -1
}

fn shift(variable: &str) -> i64 {
    let file = std::env::var_os(variable);
    let text = file.and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
