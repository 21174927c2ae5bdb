//! Settings of a whole registry: replication and account settings.

use gantry_api::RequestContext;
use gantry_api::ecr::{
    DescribeRegistryRequest, DescribeRegistryResponse, EcrError, GetAccountSettingRequest,
    GetAccountSettingResponse, PutAccountSettingRequest, PutAccountSettingResponse,
    PutReplicationConfigurationRequest, PutReplicationConfigurationResponse,
    ReplicationConfiguration,
};
use gantry_store::Transaction;

use super::not_built;
use crate::EcrService;
use crate::model::settings::AccountSetting;
use crate::tables::AccountSettingRow;

impl EcrService {
    pub(super) fn registry_description(
        &self,
        ctx: &RequestContext,
        _: DescribeRegistryRequest,
    ) -> Result<DescribeRegistryResponse, EcrError> {
        let place = Self::place(ctx, None, "DescribeRegistry", "*")?;
        Ok(DescribeRegistryResponse {
            registry_id: Some(place.account.to_string()),
            // Rules are refused, so there are none.
            replication_configuration: Some(ReplicationConfiguration { rules: Vec::new() }),
        })
    }

    pub(super) fn put_replication(
        &self,
        ctx: &RequestContext,
        input: PutReplicationConfigurationRequest,
    ) -> Result<PutReplicationConfigurationResponse, EcrError> {
        Self::place(ctx, None, "PutReplicationConfiguration", "*")?;
        if !input.replication_configuration.rules.is_empty() {
            return Err(not_built("ecr:PutReplicationConfiguration with rules"));
        }
        Ok(PutReplicationConfigurationResponse {
            replication_configuration: Some(input.replication_configuration),
        })
    }

    pub(super) fn get_setting(
        &self,
        ctx: &RequestContext,
        input: GetAccountSettingRequest,
    ) -> Result<GetAccountSettingResponse, EcrError> {
        let setting = setting_named(&input.name)?;
        let place = Self::place(ctx, None, "GetAccountSetting", "*")?;
        let value = self
            .state
            .account_setting(&self.state.store.snapshot(), &place, setting);
        Ok(GetAccountSettingResponse {
            name: Some(input.name),
            value: Some(value),
        })
    }

    pub(super) async fn put_setting(
        &self,
        ctx: &RequestContext,
        input: PutAccountSettingRequest,
    ) -> Result<PutAccountSettingResponse, EcrError> {
        let setting = setting_named(&input.name)?;
        if !setting.values().contains(&input.value.as_str()) {
            return Err(EcrError::invalid_parameter_exception(format!(
                "Invalid parameter at 'value' failed to satisfy constraint: '{} of {} is none of {}'",
                input.value,
                input.name,
                setting.values().join(", ")
            )));
        }
        let place = Self::place(ctx, None, "PutAccountSetting", "*")?;
        let row = AccountSettingRow {
            value: input.value.clone(),
        };
        let name = setting.name();
        let mut transaction = Transaction::new();
        transaction.write::<AccountSettingRow>(&place.account, &place.region, name, &row);
        self.state.commit(transaction).await?;
        Ok(PutAccountSettingResponse {
            name: Some(input.name),
            value: Some(input.value),
        })
    }
}

fn setting_named(name: &str) -> Result<AccountSetting, EcrError> {
    AccountSetting::named(name).ok_or_else(|| {
        let names = AccountSetting::ALL.map(AccountSetting::name).join(", ");
        EcrError::invalid_parameter_exception(format!(
            "Invalid parameter at 'name' failed to satisfy constraint: '{name} is none of {names}'"
        ))
    })
}
