# Planned with the real provider and no account: what must hold whatever the settings.
# `terraform test` needs no credentials; what would be asked of AWS is answered here.

provider "aws" {
  region                      = "eu-central-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
  skip_requesting_account_id  = true
}

override_data {
  target = data.aws_availability_zones.here
  values = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
}

override_data {
  target = module.storage.data.aws_caller_identity.me
  values = { account_id = "123456789012" }
}

override_data {
  target = module.triton.data.aws_caller_identity.me
  values = { account_id = "123456789012" }
}

override_data {
  target = module.log_key.data.aws_caller_identity.me
  values = { account_id = "123456789012" }
}

override_data {
  target = module.observability.data.aws_caller_identity.me
  values = { account_id = "123456789012" }
}

variables {
  environment     = "test"
  domain          = "qsm.example.org"
  certificate_arn = "arn:aws:acm:eu-central-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"
  allowed_cidrs   = ["192.0.2.0/24"]
  alarm_email     = "qsm@example.org"
  images = {
    backend  = "example.org/qsm-ai/fastapi-be@sha256:0000"
    frontend = "example.org/qsm-ai/streamlit-fe@sha256:0000"
  }
}

run "storage_is_closed_encrypted_and_forgets" {
  command = plan

  module {
    source = "./modules/storage"
  }

  variables {
    name           = "qsm-test"
    retention_days = 7
    force_destroy  = false
  }

  override_data {
    target = data.aws_caller_identity.me
    values = { account_id = "123456789012" }
  }

  assert {
    condition = alltrue([
      for block in aws_s3_bucket_public_access_block.this :
      block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets
    ])
    error_message = "A bucket can be made public."
  }

  assert {
    condition = alltrue([
      for rule in aws_s3_bucket_server_side_encryption_configuration.scans.rule :
      rule.apply_server_side_encryption_by_default[0].sse_algorithm == "aws:kms"
    ])
    error_message = "Scans are not encrypted with a key of their own."
  }

  assert {
    condition     = one(aws_s3_bucket_lifecycle_configuration.scans.rule[0].expiration).days == 7
    error_message = "Scans are not deleted by age."
  }

  assert {
    condition     = aws_s3_bucket_versioning.scans.versioning_configuration[0].status != "Enabled"
    error_message = "A deleted scan would stay as an old version."
  }

  assert {
    condition     = aws_kms_key.this.enable_key_rotation
    error_message = "The key is never turned over."
  }
}

run "the_whole_service_can_be_planned" {
  command = plan

  assert {
    condition     = output.cluster_name == "qsm-test" && output.log_groups["backend"] == "/qsm-test/backend" && output.log_groups["pods"] == "/qsm-test/pods"
    error_message = "Names do not follow the environment's."
  }
}

run "the_network_gives_no_machine_a_public_address" {
  command = plan

  module {
    source = "./modules/network"
  }

  variables {
    name               = "qsm-test"
    cidr               = "10.40.0.0/16"
    zones              = ["eu-central-1a", "eu-central-1b"]
    log_retention_days = 30
    log_key_arn        = "arn:aws:kms:eu-central-1:123456789012:key/3"
  }

  assert {
    condition     = alltrue([for subnet in aws_subnet.public : !subnet.map_public_ip_on_launch])
    error_message = "A public subnet hands out public addresses."
  }

  assert {
    condition = (
      alltrue([for subnet in aws_subnet.public : subnet.tags["kubernetes.io/role/elb"] == "1"]) &&
      alltrue([for subnet in aws_subnet.private : subnet.tags["kubernetes.io/role/internal-elb"] == "1"])
    )
    error_message = "The load balancer controller does not find its subnets."
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 2
    error_message = "A zone has no way out of its own."
  }

  assert {
    condition     = length(aws_default_security_group.closed.ingress) == 0 && length(aws_default_security_group.closed.egress) == 0
    error_message = "The default security group lets something through."
  }
}

run "the_database_is_private_encrypted_and_guarded" {
  command = plan

  module {
    source = "./modules/database"
  }

  variables {
    name                = "qsm-test"
    vpc_id              = "vpc-1"
    subnet_ids          = ["subnet-1", "subnet-2"]
    client_group_ids    = { backend = "sg-1", worker = "sg-2" }
    instance_class      = "db.t4g.small"
    storage_gb          = 20
    multi_az            = true
    deletion_protection = true
  }

  assert {
    condition     = aws_db_instance.this.storage_encrypted && !aws_db_instance.this.publicly_accessible
    error_message = "The database is not encrypted, or is public."
  }

  assert {
    condition     = aws_db_instance.this.manage_master_user_password && aws_db_instance.this.password == null
    error_message = "The password would stand in the state."
  }

  assert {
    condition     = anytrue([for p in aws_db_parameter_group.this.parameter : p.name == "rds.force_ssl" && p.value == "1"])
    error_message = "Connections without TLS are taken."
  }

  assert {
    condition     = aws_db_instance.this.deletion_protection && !aws_db_instance.this.skip_final_snapshot
    error_message = "The database can be deleted without a trace."
  }

  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.client : rule.referenced_security_group_id]) == toset(["sg-1", "sg-2"])
    error_message = "Somebody else than the backend may connect."
  }
}

run "triton_is_inside_and_its_nodes_are_tainted" {
  command = plan

  module {
    source = "./modules/triton"
  }

  variables {
    name               = "qsm-test"
    vpc_id             = "vpc-1"
    subnet_ids         = ["subnet-1", "subnet-2"]
    client_group_ids   = { backend = "sg-1", worker = "sg-2" }
    admin_cidrs        = []
    log_retention_days = 30
    log_key_arn        = "arn:aws:kms:eu-central-1:123456789012:key/3"
    gpu                = { instance_type = "g4dn.xlarge", min = 0, max = 4, desired = 1, spot = false }
  }

  override_data {
    target = data.aws_caller_identity.me
    values = { account_id = "123456789012" }
  }

  assert {
    condition = alltrue([
      for statement in data.aws_iam_policy_document.autoscaler.statement :
      statement.sid == "Look" ? alltrue([for action in statement.actions : can(regex(":(Describe|Get)", action))]) : length(statement.condition) == 1
    ])
    error_message = "The autoscaler may change what is not this cluster's."
  }

  assert {
    condition     = toset(data.aws_iam_policy_document.logs.statement[0].actions) == toset(["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"])
    error_message = "Who ships logs may do more than add lines."
  }

  assert {
    condition     = aws_cloudwatch_log_group.pods.retention_in_days == 30 && aws_eks_pod_identity_association.logs.namespace == "qsm-ai-logs"
    error_message = "Logs of pods stay for ever, or nobody may ship them."
  }

  assert {
    condition     = aws_lb.this.internal
    error_message = "Triton is reachable from outside."
  }

  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.client : rule.referenced_security_group_id]) == toset(["sg-1", "sg-2"])
    error_message = "Somebody else than the backend may ask Triton."
  }

  assert {
    condition     = !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "The Kubernetes API is public though no network was named."
  }

  assert {
    condition     = one(aws_eks_node_group.gpu.taint).key == "nvidia.com/gpu" && aws_eks_node_group.gpu.scaling_config[0].min_size == 0
    error_message = "GPU nodes take any pod, or cannot rest."
  }

  assert {
    condition     = alltrue([for template in aws_launch_template.node : template.metadata_options[0].http_tokens == "required"])
    error_message = "Instance metadata is given without a token."
  }
}

run "the_door_is_tls_and_leads_each_path_to_its_tier" {
  command = plan

  module {
    source = "./modules/services"
  }

  variables {
    name                    = "qsm-test"
    region                  = "eu-central-1"
    vpc_id                  = "vpc-1"
    vpc_cidr                = "10.40.0.0/16"
    public_subnet_ids       = ["subnet-1", "subnet-2"]
    private_subnet_ids      = ["subnet-3", "subnet-4"]
    backend                 = { cpu = 1024, memory = 4096, min = 1, max = 6 }
    worker                  = { cpu = 4096, memory = 8192, min = 1, max = 6, spot = true }
    log_user_key_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:log"

    rate_limit_storage_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:redis"

    oidc               = { issuer = "https://id.example.org", audience = "qsm-ai", user_role = "", email_domains = ["example.org"] }
    triton_address     = "triton.internal:8001"
    bucket             = "scans"
    bucket_arn         = "arn:aws:s3:::scans"
    bucket_key_arn     = "arn:aws:kms:eu-central-1:123456789012:key/1"
    log_bucket         = "logs"
    log_retention_days = 30
    log_key_arn        = "arn:aws:kms:eu-central-1:123456789012:key/3"
    database = {
      host       = "db.internal"
      name       = "qsm"
      secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:db"
      key_arn    = "arn:aws:kms:eu-central-1:123456789012:key/2"
    }
  }

  assert {
    condition     = startswith(aws_lb_listener.secure.ssl_policy, "ELBSecurityPolicy-TLS13") && aws_lb_listener.plain.default_action[0].type == "redirect"
    error_message = "The door speaks plain HTTP, or old TLS."
  }

  assert {
    condition     = contains(one(aws_lb_listener_rule.api.condition).path_pattern[0].values, "/api/*")
    error_message = "/api/* does not lead to the backend."
  }

  assert {
    condition     = toset(one(aws_lb_listener_rule.documentation.condition).path_pattern[0].values) == toset(["/docs", "/redoc", "/openapi.json"])
    error_message = "The API's documentation does not lead to the backend."
  }

  assert {
    condition     = aws_lb_listener_rule.hidden.priority < aws_lb_listener_rule.api.priority && contains(one(aws_lb_listener_rule.hidden.condition).path_pattern[0].values, "/metrics")
    error_message = "Metrics are shown to the world."
  }

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.web : rule.cidr_ipv4 == "192.0.2.0/24"])
    error_message = "The door is open to networks that were not named."
  }

  assert {
    condition     = aws_lb.this.idle_timeout > 300 && aws_lb_target_group.tier["frontend"].stickiness[0].enabled
    error_message = "Requests that wait for their result would be cut, or sessions lost."
  }

  assert {
    condition     = alltrue([for service in aws_ecs_service.tier : !service.network_configuration[0].assign_public_ip])
    error_message = "A task has a public address."
  }

  assert {
    condition     = length(aws_iam_role_policy.start) == 3 && toset(keys(aws_iam_role_policy.bucket)) == toset(["backend", "worker"])
    error_message = "Roles are missing."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(data.aws_iam_policy_document.bucket.json).Statement :
      !contains(flatten([statement.Action]), "s3:*") && !contains(flatten([statement.Resource]), "*")
    ])
    error_message = "The backend may do more than it must."
  }

  assert {
    condition     = !contains([for s in data.aws_iam_policy_document.start["frontend"].statement : s.sid], "Secret")
    error_message = "The frontend may read the database's password."
  }

  assert {
    condition = [
      for tier, task in aws_ecs_task_definition.tier : tier
      if contains(jsondecode(task.container_definitions)[0].secrets[*].name, "QSM_RATE_LIMIT_STORAGE")
    ] == ["backend"]
    error_message = "Requests are counted by each backend alone, or others read where."
  }

  assert {
    condition = alltrue([
      for task in aws_ecs_task_definition.tier :
      jsondecode(task.container_definitions)[0].readonlyRootFilesystem &&
      jsondecode(task.container_definitions)[0].user == "10001:10001"
    ])
    error_message = "A container may write to its image, or runs as root."
  }

  assert {
    condition = alltrue([
      for wanted, value in { QSM_ACCESS = "keys,oidc", QSM_OIDC_ISSUER = "https://id.example.org", QSM_WORKERS = "0" } :
      contains(jsondecode(aws_ecs_task_definition.tier["backend"].container_definitions)[0].environment, { name = wanted, value = value })
    ])
    error_message = "Everybody is let in, or the gateway computes."
  }

  assert {
    condition     = concat([for part in ["entryPoint", "command"] : jsondecode(aws_ecs_task_definition.tier["worker"].container_definitions)[0][part]]...) == ["qsm-ai", "worker"] && length(aws_ecs_service.tier["worker"].load_balancer) == 0
    error_message = "Nobody computes, or who computes is reachable."
  }

  assert {
    condition     = one(aws_ecs_service.tier["worker"].capacity_provider_strategy).capacity_provider == "FARGATE_SPOT" && one(aws_ecs_service.tier["backend"].capacity_provider_strategy).capacity_provider == "FARGATE"
    error_message = "Workers are not on the capacity that was wished for, or the gateway may be taken away."
  }

  assert {
    condition = !anytrue([
      for variable in jsondecode(aws_ecs_task_definition.tier["backend"].container_definitions)[0].environment :
      can(regex("PASSWORD|SECRET", variable.name)) || can(regex("://[^@/]*:[^@/]*@", variable.value))
    ])
    error_message = "A password stands in the environment."
  }
}

run "an_installation_that_nobody_may_reach_is_refused" {
  command = plan

  variables {
    allowed_cidrs = []
  }

  expect_failures = [var.allowed_cidrs]
}

run "a_wish_outside_its_bounds_is_refused" {
  command = plan

  variables {
    gpu = { min = 2, desired = 1, max = 4 }
  }

  expect_failures = [var.gpu]
}

run "the_firewall_counts_bodies_and_stops_floods" {
  command = plan

  module {
    source = "./modules/waf"
  }

  variables {
    name                   = "qsm-test"
    load_balancer_arn      = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/qsm-test/1"
    requests_per_5_minutes = 6000
  }

  assert {
    condition = anytrue([
      for rule in aws_wafv2_web_acl.this.rule : try(rule.statement[0].rate_based_statement[0].limit == 6000, false)
    ])
    error_message = "One address may ask for as much as it likes."
  }

  assert {
    condition = alltrue([
      for rule in aws_wafv2_web_acl.this.rule :
      try(anytrue([
        for override in rule.statement[0].managed_rule_group_statement[0].rule_action_override :
        override.name == "SizeRestrictions_BODY" && length(override.action_to_use[0].count) == 1
      ]), false) if rule.name == "AWSManagedRulesCommonRuleSet"
    ])
    error_message = "Scans would be taken for attacks."
  }
}

run "nobody_computes_is_refused" {
  command = plan

  variables {
    worker = { min = 0 }
  }

  expect_failures = [var.worker]
}
