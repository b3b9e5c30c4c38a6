//! TLS settings of a connection: whom to trust, and who the client is.
//!
//! Cryptography by `ring`, which needs nothing but a C compiler to be built. A certificate that
//! is itself among the trusted ones is accepted for the names it holds, as OpenSSL and Go do:
//! sites make self-signed certificates for their registries.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::certificates::HostCertificates;
use crate::error::Cause;

/// The system's authorities; `SSL_CERT_FILE` and `SSL_CERT_DIR` are obeyed. Read once.
fn system_authorities() -> &'static [CertificateDer<'static>] {
    static AUTHORITIES: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    AUTHORITIES.get_or_init(|| {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            log::debug!("certificate of the system skipped: {error}");
        }
        loaded.certs
    })
}

/// Settings for a server. With `verify` off any certificate will do.
pub(crate) fn config(certificates: HostCertificates, verify: bool) -> Result<ClientConfig, Cause> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = if verify {
        Trust::authorities(certificates.authorities, &provider)
    } else {
        Trust::Anybody
    };
    let verifier = Arc::new(Verifier { trust, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Cause(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match certificates.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| Cause(error.to_string()))
        }
    }
}

/// Whose certificates are accepted.
#[derive(Debug)]
enum Trust {
    /// What the authorities signed, and the authorities' certificates themselves.
    Authorities {
        /// `None` if nobody is trusted: a system without certificates.
        chains: Option<Arc<WebPkiServerVerifier>>,
        own: Vec<CertificateDer<'static>>,
    },
    /// Anybody's: the configuration calls the registry insecure.
    Anybody,
}

impl Trust {
    fn authorities(own: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(system_authorities().iter().cloned());
        roots.add_parsable_certificates(own.iter().cloned());
        let chains =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .ok();
        Self::Authorities { chains, own }
    }
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Trust::Authorities { chains, own } = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        if own.iter().chain(system_authorities()).any(|it| it.as_ref() == end_entity.as_ref()) {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            rustls::client::verify_server_name(&parsed, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        match chains {
            Some(chains) => chains.verify_server_cert(end_entity, intermediates, name, ocsp, now),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
