//! Structures as they stand on disk: fixed width, little-endian, alignment 1, no padding of the compiler's.
//!
//! The macro states name, offset and type of each field once, and proves at compile time that they agree. The table
//! it leaves behind is compared with SPEC.md by a test.

macro_rules! wire_struct {
    ($(#[$meta:meta])* struct $name:ident is $title:literal, $bytes:literal bytes {
        $($offset:literal $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable,
            zerocopy::Unaligned,
        )]
        #[repr(C)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }

        const _: () = assert!(size_of::<$name>() == $bytes);
        $(const _: () = assert!(core::mem::offset_of!($name, $field) == $offset);)*

        impl $name {
            pub(crate) const LAYOUT: crate::layout::StructLayout = crate::layout::StructLayout {
                name: $title,
                bytes: $bytes,
                fields: &[$(crate::layout::FieldLayout {
                    name: stringify!($field),
                    offset: core::mem::offset_of!($name, $field),
                    bytes: size_of::<$type>(),
                },)*],
            };
        }
    };
}
