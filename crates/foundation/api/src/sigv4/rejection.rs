//! Why a signature was not accepted, in AWS's words.
//!
//! The same reason has two codes at AWS: awsJson services say `UnrecognizedClientException` where
//! Query services say `InvalidClientTokenId`, with other HTTP statuses too. Which of them goes
//! out is decided by the protocol of the request.

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Nothing that looks like AWS credentials.
    MissingToken,
    /// Something that does, but not all of it, or not in its form.
    Incomplete(String),
    /// Complete, but not the signature of this request, now, for this service.
    InvalidSignature(String),
    /// The access key is unknown, or the session token is not its own.
    UnknownClient,
    ExpiredToken,
}

impl Rejection {
    pub(super) fn mismatch() -> Self {
        Self::InvalidSignature(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
                .to_owned(),
        )
    }

    pub fn message(&self) -> &str {
        match self {
            Self::MissingToken => "Request is missing Authentication Token",
            Self::Incomplete(message) | Self::InvalidSignature(message) => message,
            Self::UnknownClient => "The security token included in the request is invalid.",
            Self::ExpiredToken => "The security token included in the request is expired",
        }
    }

    /// The code and HTTP status of a service that speaks awsJson (and of WebSocket routes).
    pub fn json_code(&self) -> (&'static str, u16) {
        let code = match self {
            Self::MissingToken => "MissingAuthenticationTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::InvalidSignature(_) => "InvalidSignatureException",
            Self::UnknownClient => "UnrecognizedClientException",
            Self::ExpiredToken => "ExpiredTokenException",
        };
        (code, 400)
    }

    /// The code and HTTP status of a service that speaks Query.
    pub fn query_code(&self) -> (&'static str, u16) {
        match self {
            Self::MissingToken => ("MissingAuthenticationToken", 403),
            Self::Incomplete(_) => ("IncompleteSignature", 400),
            Self::InvalidSignature(_) => ("SignatureDoesNotMatch", 403),
            Self::UnknownClient => ("InvalidClientTokenId", 403),
            Self::ExpiredToken => ("ExpiredToken", 403),
        }
    }
}
