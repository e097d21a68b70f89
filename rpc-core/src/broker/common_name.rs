//! The common name in a certificate: a reader of the part of DER that it needs.
//!
//! ```text
//!  Certificate ─► tbsCertificate ─► [version], serialNumber, signature, issuer, validity, subject ─► set ─► (oid, text)
//! ```
//!
//! rustls has verified the certificate before. Malformed bytes yield no name.

/// The common name of a certificate's subject; `None` when it has none. Several are joined by commas, as in RabbitMQ.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let mut certificate = Der(Der(certificate).take(SEQUENCE)?);
    let mut fields = Der(certificate.take(SEQUENCE)?);
    fields.take(EXPLICIT_0);
    fields.take(INTEGER)?;
    // Signature algorithm, issuer, validity.
    for _ in 0..3 {
        fields.take(SEQUENCE)?;
    }
    let mut subject = Der(fields.take(SEQUENCE)?);
    let mut names = Vec::new();
    while let Some(attributes) = subject.take(SET) {
        let mut attributes = Der(attributes);
        while let Some(attribute) = attributes.take(SEQUENCE) {
            let mut attribute = Der(attribute);
            let is_common_name = attribute.take(OBJECT_IDENTIFIER)? == COMMON_NAME;
            let (tag, value) = attribute.next()?;
            if is_common_name {
                names.push(text(tag, value)?);
            }
        }
    }
    (!names.is_empty()).then(|| names.join(","))
}

fn text(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        UTF8_STRING | PRINTABLE_STRING | IA5_STRING => String::from_utf8(value.to_vec()).ok(),
        // T.61 by the standard, Latin 1 in practice.
        TELETEX_STRING => Some(value.iter().copied().map(char::from).collect()),
        BMP_STRING => {
            let units: Vec<_> =
                value.chunks(2).map(|unit| unit.iter().fold(0, |all, byte| (all << 8) | u16::from(*byte))).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    }
}

/// The unread rest of a sequence of values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next value if it has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.0.first() != Some(&tag) {
            return None;
        }
        self.next().map(|(_, value)| value)
    }

    /// The next value and its tag. Tags of several octets do not occur in names.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, short], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match short {
            0..=0x7F => (usize::from(short), rest),
            0x81..=0x84 => {
                let (length, rest) = rest.split_at_checked(usize::from(short & 0x7F))?;
                (length.iter().fold(0, |all, byte| (all << 8) | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }
}

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
const PRINTABLE_STRING: u8 = 0x13;
const TELETEX_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const BMP_STRING: u8 = 0x1E;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const EXPLICIT_0: u8 = 0xA0;
/// 2.5.4.3
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, string::BmpString};

    use super::*;

    fn certificate(names: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), name.clone());
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_is_found_among_other_attributes() {
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let organization = || (DnType::OrganizationName, utf8("Works"));
        let named =
            |name| certificate(&[organization(), (DnType::CommonName, name), (DnType::CountryName, utf8("AT"))]);
        assert_eq!(common_name(&named(utf8("ann"))).as_deref(), Some("ann"));
        assert_eq!(common_name(&named(utf8("Jürgen"))).as_deref(), Some("Jürgen"));
        assert_eq!(common_name(&named(utf8(&"long".repeat(60)))), Some("long".repeat(60)));
        let bmp = BmpString::try_from("añn").unwrap();
        assert_eq!(common_name(&named(DnValue::BmpString(bmp))).as_deref(), Some("añn"));
        assert_eq!(common_name(&certificate(&[organization()])), None);
    }

    #[test]
    fn malformed_certificates_have_no_name() {
        let whole = certificate(&[(DnType::CommonName, DnValue::Utf8String("ann".to_owned()))]);
        for end in 0..whole.len() {
            assert_eq!(common_name(&whole[..end]), None);
        }
        for at in 0..whole.len() {
            for value in [0, 0x7F, 0x80, 0x84, 0xFF] {
                let mut broken = whole.clone();
                broken[at] = value;
                drop(common_name(&broken));
            }
        }
    }
}
