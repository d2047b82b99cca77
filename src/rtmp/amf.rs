//! AMF0: the values of RTMP's commands and metadata (Action Message Format, AMF 0, Adobe 2007).
//!
//! Reading is bounded in depth and in number of values, and allocates by what was read, never by a count that was
//! announced. Text that is not UTF-8 is read with replacement characters: encoders put local code pages into metadata.

use super::wire::Reader;

/// Names and values in the order they came. Names may repeat; [`get`] takes the first.
pub type Object = Vec<(String, Value)>;

/// One AMF0 value (section 2.1).
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number; AMF0 knows IEEE doubles only.
    Number(f64),
    /// A boolean.
    Boolean(bool),
    /// A string, short or long on the wire.
    String(String),
    /// An anonymous object.
    Object(Object),
    /// Null.
    Null,
    /// Undefined; also what markers that carry nothing ("unsupported") are read as.
    Undefined,
    /// A reference to an earlier object. It is not resolved: no RTMP peer is known to send one that matters.
    Reference(u16),
    /// An array with names, the form of `onMetaData`.
    EcmaArray(Object),
    /// An array without names.
    StrictArray(Vec<Value>),
    /// Milliseconds since 1970, UTC. The wire's time zone is reserved and dropped.
    Date(f64),
    /// An XML document's text.
    Xml(String),
    /// An object with a class name.
    Typed(String, Object),
}

impl Value {
    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The boolean; a number counts as one as well, as some players send 0 and 1.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Boolean(flag) => Some(*flag),
            Self::Number(number) => Some(*number != 0.0),
            _ => None,
        }
    }

    /// Names and values of an object, a typed object or an ECMA array.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) | Self::EcmaArray(object) | Self::Typed(_, object) => Some(object),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

/// The first value called `name`.
pub fn get<'a>(object: &'a Object, name: &str) -> Option<&'a Value> {
    object.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Why bytes are not AMF0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmfError {
    /// The bytes end inside a value.
    #[error("AMF ends inside a value")]
    Truncated,
    /// Values nest deeper than [`Limits::amf_depth`](super::Limits::amf_depth).
    #[error("AMF nests too deep")]
    Depth,
    /// More values than [`Limits::amf_values`](super::Limits::amf_values).
    #[error("AMF has too many values")]
    Values,
    /// A type marker that AMF0 does not define or reserves, or AMF3.
    #[error("AMF type marker {0} is not known")]
    Marker(u8),
}

/// Bounds of one message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caps {
    pub(crate) depth: usize,
    pub(crate) values: usize,
}

const NUMBER: u8 = 0;
const BOOLEAN: u8 = 1;
const STRING: u8 = 2;
const OBJECT: u8 = 3;
const NULL: u8 = 5;
const UNDEFINED: u8 = 6;
const REFERENCE: u8 = 7;
const ECMA_ARRAY: u8 = 8;
const OBJECT_END: u8 = 9;
const STRICT_ARRAY: u8 = 10;
const DATE: u8 = 11;
const LONG_STRING: u8 = 12;
const UNSUPPORTED: u8 = 13;
const XML: u8 = 15;
const TYPED: u8 = 16;

/// Reads the values of one message one after the other.
pub(crate) struct Decoder<'a> {
    reader: Reader<'a>,
    caps: Caps,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8], caps: Caps) -> Self {
        Self { reader: Reader::new(bytes), caps }
    }

    /// The bytes after the last value read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.reader.rest()
    }

    /// The next value, `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Value>, AmfError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        self.value(self.caps.depth).map(Some)
    }

    /// All values that are left.
    pub(crate) fn all(&mut self) -> Result<Vec<Value>, AmfError> {
        let mut values = Vec::new();
        while let Some(value) = self.next()? {
            values.push(value);
        }
        Ok(values)
    }

    /// One value of at most `depth` levels: this recursion is what the depth bounds.
    fn value(&mut self, depth: usize) -> Result<Value, AmfError> {
        let below = depth.checked_sub(1).ok_or(AmfError::Depth)?;
        self.caps.values = self.caps.values.checked_sub(1).ok_or(AmfError::Values)?;
        let marker = self.reader.u8().ok_or(AmfError::Truncated)?;
        Ok(match marker {
            NUMBER => Value::Number(self.number()?),
            BOOLEAN => Value::Boolean(self.reader.u8().ok_or(AmfError::Truncated)? != 0),
            STRING => Value::String(self.string()?),
            OBJECT => Value::Object(self.object(below)?),
            NULL => Value::Null,
            UNDEFINED | UNSUPPORTED => Value::Undefined,
            REFERENCE => Value::Reference(self.reader.u16().ok_or(AmfError::Truncated)?),
            ECMA_ARRAY => {
                // The count is a hint that encoders get wrong; the end marker decides.
                self.reader.u32().ok_or(AmfError::Truncated)?;
                Value::EcmaArray(self.object(below)?)
            }
            STRICT_ARRAY => Value::StrictArray(self.array(below)?),
            DATE => {
                let date = self.number()?;
                self.reader.u16().ok_or(AmfError::Truncated)?;
                Value::Date(date)
            }
            LONG_STRING => Value::String(self.long_string()?),
            XML => Value::Xml(self.long_string()?),
            TYPED => Value::Typed(self.string()?, self.object(below)?),
            other => return Err(AmfError::Marker(other)),
        })
    }

    fn number(&mut self) -> Result<f64, AmfError> {
        self.reader.f64().ok_or(AmfError::Truncated)
    }

    fn text(&mut self, len: usize) -> Result<String, AmfError> {
        let bytes = self.reader.take(len).ok_or(AmfError::Truncated)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn string(&mut self) -> Result<String, AmfError> {
        let len = self.reader.u16().ok_or(AmfError::Truncated)?;
        self.text(usize::from(len))
    }

    fn long_string(&mut self) -> Result<String, AmfError> {
        let len = self.reader.u32().ok_or(AmfError::Truncated)?;
        self.text(usize::try_from(len).map_err(|_| AmfError::Truncated)?)
    }

    fn object(&mut self, depth: usize) -> Result<Object, AmfError> {
        let mut object = Object::new();
        loop {
            let name = self.string()?;
            if name.is_empty() && self.reader.rest().first() == Some(&OBJECT_END) {
                self.reader.u8();
                return Ok(object);
            }
            object.push((name, self.value(depth)?));
        }
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Value>, AmfError> {
        let count = self.reader.u32().ok_or(AmfError::Truncated)?;
        // No room is reserved by the count: it is a claim, the values that follow are not.
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(depth)?);
        }
        Ok(values)
    }
}

/// Appends the values in AMF0. Strings over 65,535 bytes take the long form; longer names are cut at a character.
pub(crate) fn encode(values: &[Value], out: &mut Vec<u8>) {
    for value in values {
        encode_value(value, out);
    }
}

fn encode_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Number(number) => {
            out.push(NUMBER);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Boolean(flag) => out.extend_from_slice(&[BOOLEAN, u8::from(*flag)]),
        Value::String(text) => encode_string(text, out),
        Value::Object(object) => {
            out.push(OBJECT);
            encode_object(object, out);
        }
        Value::Null => out.push(NULL),
        Value::Undefined => out.push(UNDEFINED),
        Value::Reference(index) => {
            out.push(REFERENCE);
            out.extend_from_slice(&index.to_be_bytes());
        }
        Value::EcmaArray(object) => {
            out.push(ECMA_ARRAY);
            encode_count(object.len(), out);
            encode_object(object, out);
        }
        Value::StrictArray(values) => {
            out.push(STRICT_ARRAY);
            encode_count(values.len(), out);
            encode(values, out);
        }
        Value::Date(date) => {
            out.push(DATE);
            out.extend_from_slice(&date.to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        }
        Value::Xml(text) => encode_long(XML, text, out),
        Value::Typed(class, object) => {
            out.push(TYPED);
            encode_name(class, out);
            encode_object(object, out);
        }
    }
}

fn encode_count(count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

fn encode_string(text: &str, out: &mut Vec<u8>) {
    if u16::try_from(text.len()).is_ok() {
        out.push(STRING);
        encode_name(text, out);
    } else {
        encode_long(LONG_STRING, text, out);
    }
}

fn encode_long(marker: u8, text: &str, out: &mut Vec<u8>) {
    out.push(marker);
    encode_count(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn encode_name(name: &str, out: &mut Vec<u8>) {
    let mut end = name.len().min(usize::from(u16::MAX));
    while !name.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let name = name.get(..end).unwrap_or_default();
    let len = u16::try_from(name.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(name.as_bytes());
}

fn encode_object(object: &Object, out: &mut Vec<u8>) {
    for (name, value) in object {
        encode_name(name, out);
        encode_value(value, out);
    }
    out.extend_from_slice(&[0, 0, OBJECT_END]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAPS: Caps = Caps { depth: 16, values: 1024 };

    fn decode(bytes: &[u8]) -> Result<Vec<Value>, AmfError> {
        Decoder::new(bytes, CAPS).all()
    }

    fn nested(marker: &[u8], depth: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = marker.repeat(depth);
        bytes.push(NULL);
        bytes
    }

    #[test]
    fn a_depth_of_a_thousand_is_refused() {
        assert_eq!(decode(&nested(&[OBJECT, 0, 1, b'a'], 1000)), Err(AmfError::Depth));
        assert_eq!(decode(&nested(&[STRICT_ARRAY, 0, 0, 0, 1], 1000)), Err(AmfError::Depth));
        assert_eq!(decode(&nested(&[ECMA_ARRAY, 0, 0, 0, 1, 0, 1, b'a'], 1000)), Err(AmfError::Depth));
        assert!(decode(&nested(&[STRICT_ARRAY, 0, 0, 0, 1], 15)).is_ok());
        assert_eq!(decode(&nested(&[STRICT_ARRAY, 0, 0, 0, 1], 16)), Err(AmfError::Depth));
    }

    #[test]
    fn announced_counts_and_lengths_allocate_nothing() {
        let array = [STRICT_ARRAY, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(decode(&array), Err(AmfError::Truncated));
        let text = [LONG_STRING, 0xff, 0xff, 0xff, 0xff, b'x'];
        assert_eq!(decode(&text), Err(AmfError::Truncated));
        let mut many = array.to_vec();
        many.resize(5000, NULL);
        assert_eq!(decode(&many), Err(AmfError::Values));
        assert_eq!(decode(&vec![NULL; 1025]), Err(AmfError::Values));
    }

    #[test]
    fn damage_is_named() {
        assert_eq!(decode(&[0x11]), Err(AmfError::Marker(0x11)));
        assert_eq!(decode(&[NUMBER, 0, 0]), Err(AmfError::Truncated));
        assert_eq!(decode(&[OBJECT, 0, 0, 9]), Ok(vec![Value::Object(vec![])]));
        assert_eq!(decode(&[STRING, 0, 2, 0xff, b'a']), Ok(vec![Value::from("\u{fffd}a")]));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            (-1e9..1e9f64).prop_map(Value::Number),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,20}".prop_map(Value::String),
            Just(Value::String("x".repeat(70_000))),
            Just(Value::Null),
            Just(Value::Undefined),
            any::<u16>().prop_map(Value::Reference),
            (0.0..1e12f64).prop_map(Value::Date),
            ".{0,20}".prop_map(Value::Xml),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let object = proptest::collection::vec((".{1,8}", inner.clone()), 0..4);
            prop_oneof![
                object.clone().prop_map(Value::Object),
                object.clone().prop_map(Value::EcmaArray),
                (".{0,8}", object).prop_map(|(class, object)| Value::Typed(class, object)),
                proptest::collection::vec(inner, 0..4).prop_map(Value::StrictArray),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in proptest::collection::vec(value(), 0..4)) {
            let mut bytes = Vec::new();
            encode(&values, &mut bytes);
            prop_assert_eq!(decode(&bytes), Ok(values));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(prop_oneof![0u8..18, any::<u8>()], 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
