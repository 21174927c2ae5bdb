//! The settings that an account has for its registry of a region.

/// A setting by the name that callers give it. Its values begin with its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountSetting {
    /// Whose scanner looks at images. Kept; there is none.
    BasicScanTypeVersion,
    /// Which actions the registry's policy covers. Kept; policies are not evaluated.
    RegistryPolicyScope,
    /// Whether a push may mount a layer of another repository instead of sending it. Enabled by
    /// default, unlike at AWS: a blob is stored once anyway.
    BlobMounting,
}

impl AccountSetting {
    pub const ALL: [AccountSetting; 3] = [
        AccountSetting::BasicScanTypeVersion,
        AccountSetting::RegistryPolicyScope,
        AccountSetting::BlobMounting,
    ];

    pub fn named(name: &str) -> Option<AccountSetting> {
        Self::ALL.into_iter().find(|setting| setting.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            AccountSetting::BasicScanTypeVersion => "BASIC_SCAN_TYPE_VERSION",
            AccountSetting::RegistryPolicyScope => "REGISTRY_POLICY_SCOPE",
            AccountSetting::BlobMounting => "BLOB_MOUNTING",
        }
    }

    pub fn values(self) -> &'static [&'static str] {
        match self {
            AccountSetting::BasicScanTypeVersion => &["AWS_NATIVE", "CLAIR"],
            AccountSetting::RegistryPolicyScope => &["V2", "V1"],
            AccountSetting::BlobMounting => &["ENABLED", "DISABLED"],
        }
    }
}
