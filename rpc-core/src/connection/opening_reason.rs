//! The reason why a connection could not be opened, in words that say what to do. Pure.
//!
//! rustls names the fault of a certificate, but neither whose certificate it is nor who refused it.

/// A transport's reason, explained where it is about a certificate, or may be.
pub(super) fn reason_of(reason: &str, is_tls: bool) -> String {
    let explained =
        |(pattern, meaning): &(&str, &str)| reason.contains(pattern).then(|| format!("{meaning} ({reason})"));
    EXPLANATIONS.iter().find_map(explained).unwrap_or_else(|| match is_tls && reason.contains("reset by peer") {
        // TLS 1.3: the broker looks at the client's certificate after the client's first bytes, and its alert is lost with them.
        true => {
            format!("{reason}; a broker that requires a client certificate, or refuses this one, may end like this")
        }
        false => reason.to_owned(),
    })
}

/// Parts of rustls' texts; the first that occurs counts. An alert is sent by the peer, here the broker.
const EXPLANATIONS: [(&str, &str); 14] = [
    ("received fatal alert: CertificateExpired", "the broker refused the client's certificate, which has expired"),
    (
        "received fatal alert: UnknownCA",
        "the broker refused the client's certificate, whose issuer it does not trust: add the CA to the broker's",
    ),
    (
        "received fatal alert: CertificateRequired",
        "the broker requires a client certificate: set `ClientTlsOptions::identity`",
    ),
    ("received fatal alert: BadCertificate", "the broker refused the client's certificate"),
    ("received fatal alert: CertificateUnknown", "the broker refused the client's certificate"),
    ("received fatal alert: CertificateRevoked", "the broker refused the client's certificate, which is revoked"),
    ("received fatal alert: UnsupportedCertificate", "the broker refused the client's certificate"),
    ("received fatal alert: DecryptError", "the broker refused the client's certificate: its signature is wrong"),
    ("certificate expired", "the broker's certificate has expired"),
    ("certificate not valid yet", "the broker's certificate is not valid yet"),
    (
        "UnknownIssuer",
        "the broker's certificate has an issuer that this client does not trust: add its CA with `ClientTlsOptions::ca`",
    ),
    ("BadSignature", "the broker's certificate is not signed by the CA of that name that this client trusts"),
    ("certificate not valid for name", "the broker's certificate is for another host name"),
    ("invalid peer certificate", "the broker's certificate is refused"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_certificates_say_whose_it_is() {
        let reason = reason_of("invalid peer certificate: UnknownIssuer", true);
        assert!(reason.starts_with("the broker's certificate has an issuer") && reason.ends_with("UnknownIssuer)"));
        let reason = reason_of("IO error: received fatal alert: CertificateExpired", true);
        assert!(reason.starts_with("the broker refused the client's certificate, which has expired ("), "{reason}");
        assert_eq!(reason_of("connection refused", true), "connection refused");
        let reset = "IO error: Connection reset by peer (os error 104)";
        assert!(reason_of(reset, true).contains("requires a client certificate"));
        assert_eq!(reason_of(reset, false), reset);
    }
}
