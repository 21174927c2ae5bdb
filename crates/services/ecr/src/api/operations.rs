//! Which function answers each operation of the trait.

use async_trait::async_trait;
use gantry_api::RequestContext;
use gantry_api::ecr::{
    BatchCheckLayerAvailabilityRequest, BatchCheckLayerAvailabilityResponse,
    BatchDeleteImageRequest, BatchDeleteImageResponse, BatchGetImageRequest, BatchGetImageResponse,
    BatchGetRepositoryScanningConfigurationRequest,
    BatchGetRepositoryScanningConfigurationResponse, CompleteLayerUploadRequest,
    CompleteLayerUploadResponse, CreateRepositoryCreationTemplateRequest,
    CreateRepositoryCreationTemplateResponse, CreateRepositoryRequest, CreateRepositoryResponse,
    DeleteLifecyclePolicyRequest, DeleteLifecyclePolicyResponse, DeleteRegistryPolicyRequest,
    DeleteRegistryPolicyResponse, DeleteRepositoryCreationTemplateRequest,
    DeleteRepositoryCreationTemplateResponse, DeleteRepositoryPolicyRequest,
    DeleteRepositoryPolicyResponse, DeleteRepositoryRequest, DeleteRepositoryResponse,
    DescribeImageScanFindingsRequest, DescribeImageScanFindingsResponse, DescribeImagesRequest,
    DescribeImagesResponse, DescribeRegistryRequest, DescribeRegistryResponse,
    DescribeRepositoriesRequest, DescribeRepositoriesResponse,
    DescribeRepositoryCreationTemplatesRequest, DescribeRepositoryCreationTemplatesResponse, Ecr,
    EcrError, GetAccountSettingRequest, GetAccountSettingResponse, GetAuthorizationTokenRequest,
    GetAuthorizationTokenResponse, GetDownloadUrlForLayerRequest, GetDownloadUrlForLayerResponse,
    GetLifecyclePolicyPreviewRequest, GetLifecyclePolicyPreviewResponse, GetLifecyclePolicyRequest,
    GetLifecyclePolicyResponse, GetRegistryPolicyRequest, GetRegistryPolicyResponse,
    GetRegistryScanningConfigurationRequest, GetRegistryScanningConfigurationResponse,
    GetRepositoryPolicyRequest, GetRepositoryPolicyResponse, InitiateLayerUploadRequest,
    InitiateLayerUploadResponse, ListImageReferrersRequest, ListImageReferrersResponse,
    ListImagesRequest, ListImagesResponse, ListTagsForResourceRequest, ListTagsForResourceResponse,
    PutAccountSettingRequest, PutAccountSettingResponse, PutImageRequest, PutImageResponse,
    PutImageScanningConfigurationRequest, PutImageScanningConfigurationResponse,
    PutImageTagMutabilityRequest, PutImageTagMutabilityResponse, PutLifecyclePolicyRequest,
    PutLifecyclePolicyResponse, PutRegistryPolicyRequest, PutRegistryPolicyResponse,
    PutRegistryScanningConfigurationRequest, PutRegistryScanningConfigurationResponse,
    PutReplicationConfigurationRequest, PutReplicationConfigurationResponse,
    SetRepositoryPolicyRequest, SetRepositoryPolicyResponse, StartImageScanRequest,
    StartImageScanResponse, StartLifecyclePolicyPreviewRequest,
    StartLifecyclePolicyPreviewResponse, TagResourceRequest, TagResourceResponse,
    UntagResourceRequest, UntagResourceResponse, UpdateRepositoryCreationTemplateRequest,
    UpdateRepositoryCreationTemplateResponse, UploadLayerPartRequest, UploadLayerPartResponse,
};

use crate::EcrService;

#[async_trait]
impl Ecr for EcrService {
    async fn batch_check_layer_availability(
        &self,
        ctx: &RequestContext,
        input: BatchCheckLayerAvailabilityRequest,
    ) -> Result<BatchCheckLayerAvailabilityResponse, EcrError> {
        self.check_layers(ctx, input).await
    }

    async fn batch_delete_image(
        &self,
        ctx: &RequestContext,
        input: BatchDeleteImageRequest,
    ) -> Result<BatchDeleteImageResponse, EcrError> {
        self.delete_images(ctx, input).await
    }

    async fn batch_get_image(
        &self,
        ctx: &RequestContext,
        input: BatchGetImageRequest,
    ) -> Result<BatchGetImageResponse, EcrError> {
        self.get_images(ctx, input).await
    }

    async fn batch_get_repository_scanning_configuration(
        &self,
        ctx: &RequestContext,
        input: BatchGetRepositoryScanningConfigurationRequest,
    ) -> Result<BatchGetRepositoryScanningConfigurationResponse, EcrError> {
        self.repositories_scanning(ctx, input)
    }

    async fn complete_layer_upload(
        &self,
        ctx: &RequestContext,
        input: CompleteLayerUploadRequest,
    ) -> Result<CompleteLayerUploadResponse, EcrError> {
        self.complete_upload(ctx, input).await
    }

    async fn create_repository(
        &self,
        ctx: &RequestContext,
        input: CreateRepositoryRequest,
    ) -> Result<CreateRepositoryResponse, EcrError> {
        self.create(ctx, input).await
    }

    async fn create_repository_creation_template(
        &self,
        ctx: &RequestContext,
        input: CreateRepositoryCreationTemplateRequest,
    ) -> Result<CreateRepositoryCreationTemplateResponse, EcrError> {
        self.create_template(ctx, input).await
    }

    async fn delete_lifecycle_policy(
        &self,
        ctx: &RequestContext,
        input: DeleteLifecyclePolicyRequest,
    ) -> Result<DeleteLifecyclePolicyResponse, EcrError> {
        self.delete_lifecycle(ctx, input).await
    }

    async fn delete_registry_policy(
        &self,
        ctx: &RequestContext,
        input: DeleteRegistryPolicyRequest,
    ) -> Result<DeleteRegistryPolicyResponse, EcrError> {
        self.drop_registry_policy(ctx, input).await
    }

    async fn delete_repository(
        &self,
        ctx: &RequestContext,
        input: DeleteRepositoryRequest,
    ) -> Result<DeleteRepositoryResponse, EcrError> {
        self.delete(ctx, input).await
    }

    async fn delete_repository_creation_template(
        &self,
        ctx: &RequestContext,
        input: DeleteRepositoryCreationTemplateRequest,
    ) -> Result<DeleteRepositoryCreationTemplateResponse, EcrError> {
        self.delete_template(ctx, input).await
    }

    async fn delete_repository_policy(
        &self,
        ctx: &RequestContext,
        input: DeleteRepositoryPolicyRequest,
    ) -> Result<DeleteRepositoryPolicyResponse, EcrError> {
        self.delete_policy(ctx, input).await
    }

    async fn describe_image_scan_findings(
        &self,
        ctx: &RequestContext,
        input: DescribeImageScanFindingsRequest,
    ) -> Result<DescribeImageScanFindingsResponse, EcrError> {
        self.scan_findings(ctx, input)
    }

    async fn describe_images(
        &self,
        ctx: &RequestContext,
        input: DescribeImagesRequest,
    ) -> Result<DescribeImagesResponse, EcrError> {
        self.describe_image_details(ctx, input)
    }

    async fn describe_registry(
        &self,
        ctx: &RequestContext,
        input: DescribeRegistryRequest,
    ) -> Result<DescribeRegistryResponse, EcrError> {
        self.registry_description(ctx, input)
    }

    async fn describe_repositories(
        &self,
        ctx: &RequestContext,
        input: DescribeRepositoriesRequest,
    ) -> Result<DescribeRepositoriesResponse, EcrError> {
        self.describe(ctx, input)
    }

    async fn describe_repository_creation_templates(
        &self,
        ctx: &RequestContext,
        input: DescribeRepositoryCreationTemplatesRequest,
    ) -> Result<DescribeRepositoryCreationTemplatesResponse, EcrError> {
        self.describe_templates(ctx, input)
    }

    async fn get_account_setting(
        &self,
        ctx: &RequestContext,
        input: GetAccountSettingRequest,
    ) -> Result<GetAccountSettingResponse, EcrError> {
        self.get_setting(ctx, input)
    }

    async fn get_authorization_token(
        &self,
        ctx: &RequestContext,
        input: GetAuthorizationTokenRequest,
    ) -> Result<GetAuthorizationTokenResponse, EcrError> {
        self.authorize(ctx, input)
    }

    async fn get_download_url_for_layer(
        &self,
        ctx: &RequestContext,
        input: GetDownloadUrlForLayerRequest,
    ) -> Result<GetDownloadUrlForLayerResponse, EcrError> {
        self.download_url(ctx, input)
    }

    async fn get_lifecycle_policy(
        &self,
        ctx: &RequestContext,
        input: GetLifecyclePolicyRequest,
    ) -> Result<GetLifecyclePolicyResponse, EcrError> {
        self.get_lifecycle(ctx, input)
    }

    async fn get_lifecycle_policy_preview(
        &self,
        ctx: &RequestContext,
        input: GetLifecyclePolicyPreviewRequest,
    ) -> Result<GetLifecyclePolicyPreviewResponse, EcrError> {
        self.get_preview(ctx, input)
    }

    async fn get_registry_policy(
        &self,
        ctx: &RequestContext,
        input: GetRegistryPolicyRequest,
    ) -> Result<GetRegistryPolicyResponse, EcrError> {
        self.kept_registry_policy(ctx, input)
    }

    async fn get_registry_scanning_configuration(
        &self,
        ctx: &RequestContext,
        input: GetRegistryScanningConfigurationRequest,
    ) -> Result<GetRegistryScanningConfigurationResponse, EcrError> {
        self.get_registry_scanning(ctx, input)
    }

    async fn get_repository_policy(
        &self,
        ctx: &RequestContext,
        input: GetRepositoryPolicyRequest,
    ) -> Result<GetRepositoryPolicyResponse, EcrError> {
        self.get_policy(ctx, input)
    }

    async fn initiate_layer_upload(
        &self,
        ctx: &RequestContext,
        input: InitiateLayerUploadRequest,
    ) -> Result<InitiateLayerUploadResponse, EcrError> {
        self.initiate_upload(ctx, input).await
    }

    async fn list_image_referrers(
        &self,
        ctx: &RequestContext,
        input: ListImageReferrersRequest,
    ) -> Result<ListImageReferrersResponse, EcrError> {
        self.list_referrers(ctx, input)
    }

    async fn list_images(
        &self,
        ctx: &RequestContext,
        input: ListImagesRequest,
    ) -> Result<ListImagesResponse, EcrError> {
        self.list_image_ids(ctx, input)
    }

    async fn list_tags_for_resource(
        &self,
        ctx: &RequestContext,
        input: ListTagsForResourceRequest,
    ) -> Result<ListTagsForResourceResponse, EcrError> {
        self.list_resource_tags(ctx, input)
    }

    async fn put_account_setting(
        &self,
        ctx: &RequestContext,
        input: PutAccountSettingRequest,
    ) -> Result<PutAccountSettingResponse, EcrError> {
        self.put_setting(ctx, input).await
    }

    async fn put_image(
        &self,
        ctx: &RequestContext,
        input: PutImageRequest,
    ) -> Result<PutImageResponse, EcrError> {
        self.put(ctx, input).await
    }

    async fn put_image_scanning_configuration(
        &self,
        ctx: &RequestContext,
        input: PutImageScanningConfigurationRequest,
    ) -> Result<PutImageScanningConfigurationResponse, EcrError> {
        self.put_scanning(ctx, input).await
    }

    async fn put_image_tag_mutability(
        &self,
        ctx: &RequestContext,
        input: PutImageTagMutabilityRequest,
    ) -> Result<PutImageTagMutabilityResponse, EcrError> {
        self.put_mutability(ctx, input).await
    }

    async fn put_lifecycle_policy(
        &self,
        ctx: &RequestContext,
        input: PutLifecyclePolicyRequest,
    ) -> Result<PutLifecyclePolicyResponse, EcrError> {
        self.put_lifecycle(ctx, input).await
    }

    async fn put_registry_policy(
        &self,
        ctx: &RequestContext,
        input: PutRegistryPolicyRequest,
    ) -> Result<PutRegistryPolicyResponse, EcrError> {
        self.keep_registry_policy(ctx, input).await
    }

    async fn put_registry_scanning_configuration(
        &self,
        ctx: &RequestContext,
        input: PutRegistryScanningConfigurationRequest,
    ) -> Result<PutRegistryScanningConfigurationResponse, EcrError> {
        self.put_registry_scanning(ctx, input).await
    }

    async fn put_replication_configuration(
        &self,
        ctx: &RequestContext,
        input: PutReplicationConfigurationRequest,
    ) -> Result<PutReplicationConfigurationResponse, EcrError> {
        self.put_replication(ctx, input)
    }

    async fn set_repository_policy(
        &self,
        ctx: &RequestContext,
        input: SetRepositoryPolicyRequest,
    ) -> Result<SetRepositoryPolicyResponse, EcrError> {
        self.set_policy(ctx, input).await
    }

    async fn start_image_scan(
        &self,
        ctx: &RequestContext,
        input: StartImageScanRequest,
    ) -> Result<StartImageScanResponse, EcrError> {
        self.start_scan(ctx, input)
    }

    async fn start_lifecycle_policy_preview(
        &self,
        ctx: &RequestContext,
        input: StartLifecyclePolicyPreviewRequest,
    ) -> Result<StartLifecyclePolicyPreviewResponse, EcrError> {
        self.start_preview(ctx, input).await
    }

    async fn tag_resource(
        &self,
        ctx: &RequestContext,
        input: TagResourceRequest,
    ) -> Result<TagResourceResponse, EcrError> {
        self.add_resource_tags(ctx, input).await
    }

    async fn untag_resource(
        &self,
        ctx: &RequestContext,
        input: UntagResourceRequest,
    ) -> Result<UntagResourceResponse, EcrError> {
        self.remove_resource_tags(ctx, input).await
    }

    async fn update_repository_creation_template(
        &self,
        ctx: &RequestContext,
        input: UpdateRepositoryCreationTemplateRequest,
    ) -> Result<UpdateRepositoryCreationTemplateResponse, EcrError> {
        self.update_template(ctx, input).await
    }

    async fn upload_layer_part(
        &self,
        ctx: &RequestContext,
        input: UploadLayerPartRequest,
    ) -> Result<UploadLayerPartResponse, EcrError> {
        self.upload_part(ctx, input).await
    }
}
