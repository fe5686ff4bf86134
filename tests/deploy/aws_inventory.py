"""What there is in an AWS account, by kind: run with a Python that has boto3, prints JSON.

The address comes from AWS_ENDPOINT_URL. What AWS itself keeps for a while after it was deleted (keys that
wait for their deletion, NAT gateways and task definitions that are only remembered) is left out; so are
ECS clusters and network interfaces, which moto never forgets.
"""

import json
import sys

import boto3
import jmespath
from botocore.config import Config

# service, call, where the things are in its answer (JMESPath)
KINDS = [
    ("acm", "list_certificates", "CertificateSummaryList[].CertificateArn"),
    ("application-autoscaling", "describe_scalable_targets", "ScalableTargets[].ResourceId"),
    ("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups[].AutoScalingGroupName"),
    ("cloudwatch", "describe_alarms", "MetricAlarms[].AlarmName"),
    ("ec2", "describe_addresses", "Addresses[].PublicIp"),
    ("ec2", "describe_flow_logs", "FlowLogs[].FlowLogId"),
    ("ec2", "describe_instances", "Reservations[].Instances[?State.Name!='terminated'][].InstanceId"),
    ("ec2", "describe_internet_gateways", "InternetGateways[].InternetGatewayId"),
    ("ec2", "describe_launch_templates", "LaunchTemplates[].LaunchTemplateName"),
    ("ec2", "describe_nat_gateways", "NatGateways[?State!='deleted'].NatGatewayId"),
    ("ec2", "describe_route_tables", "RouteTables[].RouteTableId"),
    ("ec2", "describe_security_groups", "SecurityGroups[].GroupId"),
    ("ec2", "describe_subnets", "Subnets[].SubnetId"),
    ("ec2", "describe_volumes", "Volumes[].VolumeId"),
    ("ec2", "describe_vpc_endpoints", "VpcEndpoints[?State!='deleted'].VpcEndpointId"),
    ("ec2", "describe_vpcs", "Vpcs[].VpcId"),
    ("ecr", "describe_repositories", "repositories[].repositoryName"),
    ("ecs", "list_task_definitions", "taskDefinitionArns"),
    ("eks", "list_clusters", "clusters"),
    ("elbv2", "describe_load_balancers", "LoadBalancers[].LoadBalancerName"),
    ("elbv2", "describe_target_groups", "TargetGroups[].TargetGroupName"),
    ("iam", "list_roles", "Roles[].RoleName"),
    ("kms", "list_aliases", "Aliases[].AliasName"),
    ("logs", "describe_log_groups", "logGroups[].logGroupName"),
    ("rds", "describe_db_instances", "DBInstances[].DBInstanceIdentifier"),
    ("rds", "describe_db_parameter_groups", "DBParameterGroups[].DBParameterGroupName"),
    ("rds", "describe_db_snapshots", "DBSnapshots[].DBSnapshotIdentifier"),
    ("rds", "describe_db_subnet_groups", "DBSubnetGroups[].DBSubnetGroupName"),
    ("s3", "list_buckets", "Buckets[].Name"),
    ("scheduler", "list_schedules", "Schedules[].Name"),
    ("secretsmanager", "list_secrets", "SecretList[].Name"),
    ("servicediscovery", "list_namespaces", "Namespaces[].Name"),
    ("sns", "list_topics", "Topics[].TopicArn"),
    ("wafv2", "list_web_acls", "WebACLs[].Name"),
]

NEEDED = {"application-autoscaling": {"ServiceNamespace": "ecs"}, "wafv2": {"Scope": "REGIONAL"}}


def client(service: str):  # type: ignore[no-untyped-def]
    """A client with the patience that a busy machine needs."""
    patient = Config(connect_timeout=60, read_timeout=600, retries={"total_max_attempts": 3})
    return boto3.Session("none", "none", region_name="eu-central-1").client(service, config=patient)


def inventory() -> dict[str, list[str]]:
    """Names of everything, by ``service.call``."""
    found = {}
    for service, call, path in KINDS:
        answer = getattr(client(service), call)(**NEEDED.get(service, {}))
        found[f"{service}.{call}"] = sorted(jmespath.search(path, answer) or [])
    kms = client("kms")
    keys = [key["KeyId"] for key in kms.list_keys()["Keys"]]
    states = {key: kms.describe_key(KeyId=key)["KeyMetadata"] for key in keys}
    found["kms.list_keys"] = sorted(
        key for key, about in states.items()
        if about["KeyState"] != "PendingDeletion" and about["KeyManager"] != "AWS"
    )  # fmt: skip
    return found


if __name__ == "__main__":
    json.dump(inventory(), sys.stdout)
