//! Why a device has not told the names of its interfaces.

use async_snmp::error::WalkAbortReason;
use async_snmp::v3::ReportStatus;
use async_snmp::{Error as Cause, ErrorStatus};

/// How a reading failed; the text is what `check --snmp`, `/status` and logs say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing came back at all, with a community.
    #[error(
        "no answer: unreachable, another port, or wrong community (a device answers a wrong one with silence)"
    )]
    NoAnswer,
    /// Nothing came back at all, with a user.
    #[error("no answer: unreachable, or another port")]
    NoAnswerToUser,
    /// ICMP came back.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// SNMPv3's discovery is answered, the community is not.
    #[error(
        "no answer to this community, though an SNMP agent is there (it answers SNMPv3's discovery): wrong community, or \
         not allowed from this address"
    )]
    WrongCommunity,
    /// SNMPv3's discovery is answered, the user is not.
    #[error(
        "wrong user or passwords: an SNMP agent is there, for it answers SNMPv3's discovery, but not this user"
    )]
    SilentToUser,
    /// usmStatsUnknownUserNames.
    #[error("wrong user: the device does not know it")]
    UnknownUser,
    /// usmStatsWrongDigests.
    #[error("wrong auth: the device knows the user, but not with this password or digest")]
    WrongAuthentication,
    /// usmStatsDecryptionErrors, or silence to what is encrypted.
    #[error("wrong privacy: the device takes the user's auth, but not this privacy password or algorithm")]
    WrongPrivacy,
    /// usmStatsUnsupportedSecLevels.
    #[error("wrong security level: the device does not sign or encrypt for this user as we do")]
    SecurityLevel,
    /// Another report of SNMPv3.
    #[error("refused by the device: {0}")]
    Report(String),
    /// noAccess, authorizationError, noSuchName.
    #[error("no such view: the device does not let this credential see its interfaces ({0})")]
    NotAllowed(&'static str),
    /// The columns are empty.
    #[error(
        "no such view: the device answers, but shows no interfaces (ifTable, ifXTable) to this credential"
    )]
    NoView,
    /// Another error status.
    #[error("the device answers with an error: {0}")]
    Status(String),
    /// Object identifiers that do not increase.
    #[error("the device's tables loop: an answer lay before the question")]
    Looping,
    /// tooBig for a single variable.
    #[error("the device finds a single row too big for an answer")]
    TooBig,
    /// sysUpTime went back between the first and the last answer.
    #[error("the device restarted meanwhile")]
    Restarted,
    /// It took too long in all.
    #[error("not read to the end in {0} s")]
    TooSlow(u64),
    /// An answer that is none.
    #[error("an answer cannot be read: {0}")]
    Malformed(String),
    /// Trouble of our own.
    #[error("cannot be asked: {0}")]
    Local(String),
}

impl Error {
    /// All labels, for the counter.
    pub const LABELS: [&'static str; 10] = [
        "no_answer",
        "wrong_community",
        "wrong_user",
        "wrong_auth",
        "wrong_privacy",
        "no_view",
        "too_big_or_looping",
        "restarted",
        "malformed",
        "local",
    ];

    /// The kind, for the counter.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoAnswer | Self::NoAnswerToUser | Self::Unreachable(_) | Self::TooSlow(_) => "no_answer",
            Self::WrongCommunity => "wrong_community",
            Self::SilentToUser | Self::UnknownUser => "wrong_user",
            Self::WrongAuthentication => "wrong_auth",
            Self::WrongPrivacy | Self::SecurityLevel => "wrong_privacy",
            Self::NotAllowed(_) | Self::NoView => "no_view",
            Self::Looping | Self::TooBig => "too_big_or_looping",
            Self::Restarted => "restarted",
            Self::Report(_) | Self::Status(_) | Self::Malformed(_) => "malformed",
            Self::Local(_) => "local",
        }
    }

    /// Asking again soon could lock an account, or raise an alarm: the credential is not right.
    pub fn is_of_credential(&self) -> bool {
        matches!(self.label(), "wrong_community" | "wrong_user" | "wrong_auth" | "wrong_privacy" | "no_view")
    }

    /// Another credential may do better.
    pub fn asks_for_another(&self) -> bool {
        self.is_of_credential() || matches!(self, Self::NoAnswer | Self::NoAnswerToUser)
    }

    /// From the library's.
    pub(super) fn of(cause: &Cause, is_user: bool) -> Self {
        match cause.exchange_source() {
            Cause::Timeout { .. } | Cause::ConstructionTimeout { .. } if is_user => Self::NoAnswerToUser,
            Cause::Timeout { .. } | Cause::ConstructionTimeout { .. } => Self::NoAnswer,
            Cause::Network { source, .. } => Self::Unreachable(source.to_string()),
            Cause::Report { status, .. } => match **status {
                ReportStatus::UnknownUserName { .. } => Self::UnknownUser,
                ReportStatus::WrongDigest { .. } => Self::WrongAuthentication,
                ReportStatus::DecryptionError { .. } => Self::WrongPrivacy,
                ReportStatus::UnsupportedSecurityLevel { .. } => Self::SecurityLevel,
                ref other => Self::Report(other.to_string()),
            },
            Cause::Snmp { status: ErrorStatus::TooBig, .. } => Self::TooBig,
            Cause::Snmp { status, .. } => match status {
                ErrorStatus::NoAccess | ErrorStatus::AuthorizationError | ErrorStatus::NoSuchName => {
                    Self::NotAllowed(status.as_str().unwrap_or_default())
                }
                other => Self::Status(other.to_string()),
            },
            Cause::WalkAborted { reason: WalkAbortReason::ResultLimitExceeded { .. }, .. } => Self::TooBig,
            Cause::WalkAborted { .. } => Self::Looping,
            Cause::Auth { .. } => Self::Report("its time went back".to_owned()),
            cause @ (Cause::Decode(_) | Cause::MalformedResponse { .. } | Cause::InvalidMessage(_)) => {
                Self::Malformed(cause.to_string())
            }
            cause => Self::Local(cause.kind().to_string()),
        }
    }
}
