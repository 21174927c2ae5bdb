//! The operations: wire type in, one transaction on the store, wire type out. One file a resource.

mod account_settings;
mod attributes;
mod cluster_changes;
mod clusters;
mod container_instances;
mod describe_services;
pub(crate) mod identity;
mod instance_state;
mod new_tasks;
mod placements;
mod run_task;
mod service_changes;
mod service_deployment_changes;
mod service_deployments;
mod service_revisions;
pub(crate) mod services;
mod start_task;
mod state_changes;
mod stop_task;
mod tag_resources;
mod task_definition_lists;
mod task_definitions;
mod task_protection;

pub(crate) mod describe_tasks;
pub(crate) mod lookup;
pub(crate) mod placing;
pub(crate) mod registrations;
pub(crate) mod service_instances;
pub(crate) mod service_tasks;

use async_trait::async_trait;
use gantry_api::RequestContext;
use gantry_api::ecs::{self, Ecs, EcsError};

use crate::service::EcsService;

macro_rules! operations {
    ($($operation:ident($request:ident) -> $response:ident = $file:ident;)*) => {
        #[async_trait]
        impl Ecs for EcsService {
            $(async fn $operation(
                &self,
                ctx: &RequestContext,
                input: ecs::$request,
            ) -> Result<ecs::$response, EcsError> {
                crate::model::enums::validate(&input)?;
                $file::$operation(self, ctx, input).await
            })*
        }
    };
}

operations! {
    create_cluster(CreateClusterRequest) -> CreateClusterResponse = clusters;
    delete_cluster(DeleteClusterRequest) -> DeleteClusterResponse = clusters;
    describe_clusters(DescribeClustersRequest) -> DescribeClustersResponse = clusters;
    list_clusters(ListClustersRequest) -> ListClustersResponse = clusters;
    update_cluster(UpdateClusterRequest) -> UpdateClusterResponse = cluster_changes;
    update_cluster_settings(UpdateClusterSettingsRequest) -> UpdateClusterSettingsResponse = cluster_changes;
    register_task_definition(RegisterTaskDefinitionRequest) -> RegisterTaskDefinitionResponse = task_definitions;
    describe_task_definition(DescribeTaskDefinitionRequest) -> DescribeTaskDefinitionResponse = task_definitions;
    deregister_task_definition(DeregisterTaskDefinitionRequest) -> DeregisterTaskDefinitionResponse = task_definitions;
    delete_task_definitions(DeleteTaskDefinitionsRequest) -> DeleteTaskDefinitionsResponse = task_definitions;
    list_task_definitions(ListTaskDefinitionsRequest) -> ListTaskDefinitionsResponse = task_definition_lists;
    list_task_definition_families(ListTaskDefinitionFamiliesRequest) -> ListTaskDefinitionFamiliesResponse = task_definition_lists;
    register_container_instance(RegisterContainerInstanceRequest) -> RegisterContainerInstanceResponse = container_instances;
    describe_container_instances(DescribeContainerInstancesRequest) -> DescribeContainerInstancesResponse = container_instances;
    list_container_instances(ListContainerInstancesRequest) -> ListContainerInstancesResponse = container_instances;
    deregister_container_instance(DeregisterContainerInstanceRequest) -> DeregisterContainerInstanceResponse = instance_state;
    update_container_instances_state(UpdateContainerInstancesStateRequest) -> UpdateContainerInstancesStateResponse = instance_state;
    update_container_agent(UpdateContainerAgentRequest) -> UpdateContainerAgentResponse = instance_state;
    put_attributes(PutAttributesRequest) -> PutAttributesResponse = attributes;
    delete_attributes(DeleteAttributesRequest) -> DeleteAttributesResponse = attributes;
    list_attributes(ListAttributesRequest) -> ListAttributesResponse = attributes;
    put_account_setting(PutAccountSettingRequest) -> PutAccountSettingResponse = account_settings;
    put_account_setting_default(PutAccountSettingDefaultRequest) -> PutAccountSettingDefaultResponse = account_settings;
    delete_account_setting(DeleteAccountSettingRequest) -> DeleteAccountSettingResponse = account_settings;
    list_account_settings(ListAccountSettingsRequest) -> ListAccountSettingsResponse = account_settings;
    discover_poll_endpoint(DiscoverPollEndpointRequest) -> DiscoverPollEndpointResponse = instance_state;
    submit_task_state_change(SubmitTaskStateChangeRequest) -> SubmitTaskStateChangeResponse = state_changes;
    submit_container_state_change(SubmitContainerStateChangeRequest) -> SubmitContainerStateChangeResponse = state_changes;
    submit_attachment_state_changes(SubmitAttachmentStateChangesRequest) -> SubmitAttachmentStateChangesResponse = state_changes;
    run_task(RunTaskRequest) -> RunTaskResponse = run_task;
    start_task(StartTaskRequest) -> StartTaskResponse = start_task;
    stop_task(StopTaskRequest) -> StopTaskResponse = stop_task;
    list_tasks(ListTasksRequest) -> ListTasksResponse = describe_tasks;
    describe_tasks(DescribeTasksRequest) -> DescribeTasksResponse = describe_tasks;
    create_service(CreateServiceRequest) -> CreateServiceResponse = services;
    update_service(UpdateServiceRequest) -> UpdateServiceResponse = service_changes;
    delete_service(DeleteServiceRequest) -> DeleteServiceResponse = service_changes;
    describe_services(DescribeServicesRequest) -> DescribeServicesResponse = describe_services;
    list_services(ListServicesRequest) -> ListServicesResponse = describe_services;
    list_services_by_namespace(ListServicesByNamespaceRequest) -> ListServicesByNamespaceResponse = describe_services;
    describe_service_deployments(DescribeServiceDeploymentsRequest) -> DescribeServiceDeploymentsResponse = service_deployments;
    list_service_deployments(ListServiceDeploymentsRequest) -> ListServiceDeploymentsResponse = service_deployments;
    stop_service_deployment(StopServiceDeploymentRequest) -> StopServiceDeploymentResponse = service_deployment_changes;
    continue_service_deployment(ContinueServiceDeploymentRequest) -> ContinueServiceDeploymentResponse = service_deployment_changes;
    describe_service_revisions(DescribeServiceRevisionsRequest) -> DescribeServiceRevisionsResponse = service_revisions;
    get_task_protection(GetTaskProtectionRequest) -> GetTaskProtectionResponse = task_protection;
    update_task_protection(UpdateTaskProtectionRequest) -> UpdateTaskProtectionResponse = task_protection;
    tag_resource(TagResourceRequest) -> TagResourceResponse = tag_resources;
    untag_resource(UntagResourceRequest) -> UntagResourceResponse = tag_resources;
    list_tags_for_resource(ListTagsForResourceRequest) -> ListTagsForResourceResponse = tag_resources;
}
