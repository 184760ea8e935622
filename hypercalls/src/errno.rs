// SPDX-License-Identifier: MIT OR Apache-2.0
//! The errors of the ABI. Values are those of Xen's `public/errno.h`.

use core::fmt;

/// Result of anything a guest asked for.
pub type Result<T> = core::result::Result<T, Errno>;

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal),* $(,)?) => {
        /// An error number of the ABI.
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum Errno { $($(#[$doc])* $name = $value),* }
        impl Errno {
            /// Returns the error that a hypercall's result stands for, if it is one.
            pub const fn from_ret(ret: i64) -> Option<Self> {
                match ret.wrapping_neg() {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
        impl fmt::Debug for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => stringify!($name)),* })
            }
        }
        impl crate::layout::Codes for Errno {
            const C_NAMES: &'static [(&'static str, i128)] =
                &[$((concat!("XEN_", stringify!($name)), $value)),*];
        }
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1,
    /// No such entry.
    ENOENT = 2,
    /// No such domain.
    ESRCH = 3,
    /// Interrupted; try again (internal).
    EINTR = 4,
    /// Input or output error.
    EIO = 5,
    /// No such address or range.
    ENXIO = 6,
    /// Argument list too long.
    E2BIG = 7,
    /// Bad handle.
    EBADF = 9,
    /// Try again.
    EAGAIN = 11,
    /// Out of memory.
    ENOMEM = 12,
    /// Wrong interface version, or no access.
    EACCES = 13,
    /// Bad guest address.
    EFAULT = 14,
    /// Busy.
    EBUSY = 16,
    /// Exists already.
    EEXIST = 17,
    /// Crosses devices.
    EXDEV = 18,
    /// No such device.
    ENODEV = 19,
    /// Is a directory.
    EISDIR = 21,
    /// Invalid argument.
    EINVAL = 22,
    /// Too many at once.
    ENFILE = 23,
    /// No space.
    ENOSPC = 28,
    /// Read only.
    EROFS = 30,
    /// Argument out of domain.
    EDOM = 33,
    /// Out of range.
    ERANGE = 34,
    /// Deadlock.
    EDEADLK = 35,
    /// No such call.
    ENOSYS = 38,
    /// No data.
    ENODATA = 61,
    /// Timer expired.
    ETIME = 62,
    /// Bad message.
    EBADMSG = 74,
    /// Value too large.
    EOVERFLOW = 75,
    /// To be restarted (internal).
    ERESTART = 85,
    /// Not supported.
    EOPNOTSUPP = 95,
    /// Address in use.
    EADDRINUSE = 98,
    /// No buffer space.
    ENOBUFS = 105,
    /// Is connected.
    EISCONN = 106,
    /// Not connected.
    ENOTCONN = 107,
    /// Timed out.
    ETIMEDOUT = 110,
    /// Connection refused.
    ECONNREFUSED = 111,
}

impl Errno {
    /// Returns the value as a hypercall returns it: negative.
    pub const fn to_ret(self) -> i64 {
        -(self as i32 as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_errors() {
        assert_eq!(Errno::EPERM.to_ret(), -1);
        assert_eq!(Errno::from_ret(-111), Some(Errno::ECONNREFUSED));
        assert_eq!([0, 1, -8, i64::MIN].map(Errno::from_ret), [None; 4]);
    }
}
