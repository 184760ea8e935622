// SPDX-License-Identifier: MIT OR Apache-2.0
//! The macros by which every structure and number of the ABI is written down once, together with
//! its C name. What must always hold: a size or an offset that differs from the one written here
//! does not compile, and `tests/layout.rs` compares all of them with the C compiler's.

/// One field of a [`Record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The C expression that names the field; padding starts with `_`.
    pub c_name: &'static str,
    /// Byte offset in the structure.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
}

/// A structure of the ABI, as its C name and its layout.
pub trait Record {
    /// The C type, such as `struct mmu_update`; empty when the public headers have none.
    const C_NAME: &'static str;
    /// The fields in order.
    const FIELDS: &'static [Field];
}

/// A family of numbers of the ABI.
pub trait Codes {
    /// Each number with its C name; numbers that the public headers do not define are left out.
    const C_NAMES: &'static [(&'static str, i128)];
}

macro_rules! c_name {
    ($name:ident) => {
        stringify!($name)
    };
    ($name:ident -) => {
        ""
    };
    ($name:ident $c:ident) => {
        stringify!($c)
    };
}

macro_rules! field_c_name {
    ($name:ident) => {
        stringify!($name)
    };
    ($name:ident $c:literal) => {
        $c
    };
}

/// Defines a `repr(C)` structure: `offset field: type`, optionally `= "C field"`.
macro_rules! record {
    ($(
        $(#[$doc:meta])*
        pub struct $name:ident = $c:literal, $size:literal {
            $($(#[$fdoc:meta])* $off:literal $field:ident: $ty:ty $(= $cf:literal)?),* $(,)?
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        #[repr(C)]
        pub struct $name {
            $(
                #[doc = concat!("`", $crate::layout::field_c_name!($field $($cf)?), "` at ", stringify!($off), ".")]
                $(#[$fdoc])*
                pub $field: $ty,
            )*
        }
        const _: () = {
            assert!(size_of::<$name>() == $size);
            $(assert!(core::mem::offset_of!($name, $field) == $off);)*
        };
        impl Default for $name {
            /// All bytes zero.
            fn default() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        }
        impl $crate::layout::Record for $name {
            const C_NAME: &'static str = $c;
            const FIELDS: &'static [$crate::layout::Field] = &[
                $($crate::layout::Field {
                    c_name: $crate::layout::field_c_name!($field $($cf)?),
                    offset: $off,
                    size: size_of::<$ty>(),
                }),*
            ];
        }
    )*};
}

/// Defines an open newtype for the numbers of one family: `NAME(C_name) = value`.
macro_rules! codes {
    ($(
        $(#[$doc:meta])*
        pub struct $name:ident($inner:ty) {
            $($(#[$cdoc:meta])* $code:ident($c:tt) = $value:expr),* $(,)?
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        #[repr(transparent)]
        pub struct $name(pub $inner);
        impl $name {
            $(
                #[doc = concat!("`", $crate::layout::c_name!($code $c), "` = ", stringify!($value), ".")]
                $(#[$cdoc])*
                pub const $code: Self = Self($value);
            )*
            /// Returns the name of a known number.
            pub const fn name(self) -> Option<&'static str> {
                $(if self.0 == $value { return Some(stringify!($code)); })*
                None
            }
        }
        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($name), "({})"), self.0),
                }
            }
        }
        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Debug::fmt(self, f)
            }
        }
        impl $crate::layout::Codes for $name {
            const C_NAMES: &'static [(&'static str, i128)] = &[
                $(($crate::layout::c_name!($code $c), Self::$code.0 as i128)),*
            ];
        }
    )*};
}

/// Defines plain constants and a unit type that lists them: `NAME(C_name): type = value`.
macro_rules! constants {
    ($table:ident { $($(#[$doc:meta])* $name:ident($c:tt): $ty:ty = $value:expr),* $(,)? }) => {
        $(
            #[doc = concat!("`", $crate::layout::c_name!($name $c), "`.")]
            $(#[$doc])*
            pub const $name: $ty = $value;
        )*
        /// The constants of this module, for comparison with the C headers.
        #[derive(Clone, Copy, Debug)]
        pub struct $table;
        impl $crate::layout::Codes for $table {
            const C_NAMES: &'static [(&'static str, i128)] = &[
                $(($crate::layout::c_name!($name $c), $name as i128)),*
            ];
        }
    };
}

pub(crate) use {c_name, codes, constants, field_c_name, record};
