//! A check around the serializer of any format: a value that would be read back as another one is refused.
//!
//! `NaN` and infinities become `null` in JSON, and `Some(None)` looks like `None` in every codec. The peer would refuse the
//! first or take the second for the other value, so the writer refuses both. The place of a value is a part of the
//! type, so that nothing is checked at run time but the floats of JSON.

use std::fmt;

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// A serializer, or a value that is written by one. `JSON`: the format has no numbers that are not finite. `IN_SOME`: it
/// stands directly inside a `Some`.
pub(super) struct Faithful<T, const JSON: bool, const IN_SOME: bool>(pub(super) T);

/// The parts of a sequence, map or struct.
pub(super) struct Parts<C, const JSON: bool>(C);

impl<T: Serialize + ?Sized, const JSON: bool, const IN_SOME: bool> Serialize for Faithful<&T, JSON, IN_SOME> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Faithful::<S, JSON, IN_SOME>(serializer))
    }
}

macro_rules! serialize {
    ($($method:ident($($argument:ident: $ty:ty),*))*) => {$(
        #[inline]
        fn $method(self, $($argument: $ty),*) -> Result<S::Ok, S::Error> {
            self.0.$method($($argument),*)
        }
    )*};
}

macro_rules! begin {
    ($($method:ident($($argument:ident: $ty:ty),*) -> $parts:ident)*) => {$(
        #[inline]
        fn $method(self, $($argument: $ty),*) -> Result<Self::$parts, S::Error> {
            self.0.$method($($argument),*).map(Parts)
        }
    )*};
}

impl<S: Serializer, const JSON: bool, const IN_SOME: bool> Serializer for Faithful<S, JSON, IN_SOME> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Parts<S::SerializeSeq, JSON>;
    type SerializeTuple = Parts<S::SerializeTuple, JSON>;
    type SerializeTupleStruct = Parts<S::SerializeTupleStruct, JSON>;
    type SerializeTupleVariant = Parts<S::SerializeTupleVariant, JSON>;
    type SerializeMap = Parts<S::SerializeMap, JSON>;
    type SerializeStruct = Parts<S::SerializeStruct, JSON>;
    type SerializeStructVariant = Parts<S::SerializeStructVariant, JSON>;

    serialize! {
        serialize_bool(value: bool)
        serialize_i8(value: i8) serialize_i16(value: i16) serialize_i32(value: i32) serialize_i64(value: i64)
        serialize_i128(value: i128)
        serialize_u8(value: u8) serialize_u16(value: u16) serialize_u32(value: u32) serialize_u64(value: u64)
        serialize_u128(value: u128)
        serialize_char(value: char) serialize_str(value: &str) serialize_bytes(value: &[u8])
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str)
    }

    begin! {
        serialize_seq(len: Option<usize>) -> SerializeSeq
        serialize_tuple(len: usize) -> SerializeTuple
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> SerializeTupleVariant
        serialize_map(len: Option<usize>) -> SerializeMap
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> SerializeStructVariant
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        if JSON && !value.is_finite() { Err(not_finite(value.into())) } else { self.0.serialize_f32(value) }
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        if JSON && !value.is_finite() { Err(not_finite(value)) } else { self.0.serialize_f64(value) }
    }

    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        if IN_SOME { Err(lost("None")) } else { self.0.serialize_none() }
    }

    #[inline]
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        if IN_SOME { Err(lost("()")) } else { self.0.serialize_unit() }
    }

    /// MessagePack writes an empty array, which is not `None`.
    #[inline]
    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        if JSON && IN_SOME { Err(lost(name)) } else { self.0.serialize_unit_struct(name) }
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Faithful::<_, JSON, true>(value))
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Faithful::<_, JSON, IN_SOME>(value))
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_variant(name, index, variant, &Faithful::<_, JSON, false>(value))
    }

    #[inline]
    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.collect_str(value)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

#[cold]
fn not_finite<E: Error>(value: f64) -> E {
    E::custom(format_args!("JSON has no number for {value}; send an `Option` or text, or use MessagePack"))
}

#[cold]
fn lost<E: Error>(inside: &str) -> E {
    E::custom(format_args!("`Some({inside})` would be read as `None`; send an enum instead"))
}

macro_rules! unnamed_parts {
    ($($part:ident::$method:ident)*) => {$(
        impl<C: $part, const JSON: bool> $part for Parts<C, JSON> {
            type Ok = C::Ok;
            type Error = C::Error;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.0.$method(&Faithful::<_, JSON, false>(value))
            }

            #[inline]
            fn end(self) -> Result<C::Ok, C::Error> {
                self.0.end()
            }
        }
    )*};
}

macro_rules! named_parts {
    ($($part:ident)*) => {$(
        impl<C: $part, const JSON: bool> $part for Parts<C, JSON> {
            type Ok = C::Ok;
            type Error = C::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), C::Error> {
                self.0.serialize_field(name, &Faithful::<_, JSON, false>(value))
            }

            #[inline]
            fn skip_field(&mut self, name: &'static str) -> Result<(), C::Error> {
                self.0.skip_field(name)
            }

            #[inline]
            fn end(self) -> Result<C::Ok, C::Error> {
                self.0.end()
            }
        }
    )*};
}

unnamed_parts! {
    SerializeSeq::serialize_element
    SerializeTuple::serialize_element
    SerializeTupleStruct::serialize_field
    SerializeTupleVariant::serialize_field
}
named_parts! { SerializeStruct SerializeStructVariant }

impl<C: SerializeMap, const JSON: bool> SerializeMap for Parts<C, JSON> {
    type Ok = C::Ok;
    type Error = C::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.0.serialize_key(&Faithful::<_, JSON, false>(key))
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.0.serialize_value(&Faithful::<_, JSON, false>(value))
    }

    #[inline]
    fn serialize_entry<K, T>(&mut self, key: &K, value: &T) -> Result<(), C::Error>
    where
        K: Serialize + ?Sized,
        T: Serialize + ?Sized,
    {
        self.0.serialize_entry(&Faithful::<_, JSON, false>(key), &Faithful::<_, JSON, false>(value))
    }

    #[inline]
    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.end()
    }
}
