# Backend, workers and frontend as Fargate services: read-only root, no shell access, a role of their own each.

locals {
  data = {
    QSM_TRITON_URL   = var.triton_address
    QSM_STORAGE_URL  = "s3://${var.bucket}/objects"
    QSM_DATABASE_URL = "postgresql+psycopg://qsm@${var.database.host}:5432/${var.database.name}?sslmode=require"
    AWS_REGION       = var.region
  }
  access = merge({ QSM_ACCESS = var.oidc == null ? "keys" : "keys,oidc" }, var.oidc == null ? {} : {
    QSM_OIDC_ISSUER        = var.oidc.issuer
    QSM_OIDC_AUDIENCE      = var.oidc.audience
    QSM_OIDC_USER_ROLE     = var.oidc.user_role
    QSM_OIDC_EMAIL_DOMAINS = join(",", var.oidc.email_domains)
  })
  # One entry of the database's secret, which holds the user's name, too.
  password_of = ":password::"
  # PGPASSWORD is read by the PostgreSQL client library itself, so that no URL holds a password. With the other one logs
  # hash users, the same on all machines.
  secrets = merge(
    { PGPASSWORD = "${var.database.secret_arn}${local.password_of}" },
    var.log_user_key_secret_arn == null ? {} : { QSM_LOG_USER_KEY = var.log_user_key_secret_arn },
  )

  tiers = {
    backend = {
      image  = var.images.backend
      port   = 8000
      cpu    = var.backend.cpu
      memory = var.backend.memory
      min    = var.backend.min
      max    = var.backend.max
      health = "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"
      environment = merge(local.data, local.access, {
        QSM_WORKERS      = "0"
        QSM_CORS_ORIGINS = "https://${var.domain}"
        # Uploads have this long to end, less than stopTimeout.
        QSM_SHUTDOWN_S = "60"
      })
      entry   = null
      command = null
      # The address may hold a password.
      secrets = merge(
        local.secrets,
        var.rate_limit_storage_secret_arn == null ? {} : { QSM_RATE_LIMIT_STORAGE = var.rate_limit_storage_secret_arn },
      )
      busy = 60
    }
    # The same image with another command; it takes jobs from the database and answers nobody.
    worker = {
      image  = var.images.backend
      port   = null
      cpu    = var.worker.cpu
      memory = var.worker.memory
      min    = var.worker.min
      max    = var.worker.max
      # Its own health, on the port that nobody else is let to.
      health = "import urllib.request as r; r.urlopen('http://127.0.0.1:8010/healthz', timeout=4)"
      # It lets nobody in, but refuses settings that would let in everybody.
      environment = merge(local.data, local.access, { QSM_WORKERS = "1", QSM_WORKER_GRACE_S = "90" })
      entry       = ["qsm-ai"]
      command     = ["worker"]
      secrets     = local.secrets
      # One job keeps a worker's processors busy: where most are, jobs wait.
      busy = 50
    }
    frontend = {
      image       = var.images.frontend
      port        = 8501
      cpu         = 512
      memory      = 2048
      min         = 1
      max         = 4
      health      = "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"
      environment = { QSM_API_URL = "http://backend.${var.name}:8000" }
      entry       = null
      command     = null
      secrets     = {}
      busy        = 60
    }
  }
  doors = { for tier, is in local.tiers : tier => is if is.port != null }
}

resource "aws_ecs_cluster" "this" {
  name = var.name

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

resource "aws_service_discovery_http_namespace" "this" {
  name = var.name
}

resource "aws_cloudwatch_log_group" "tier" {
  for_each = local.tiers

  name              = "/${var.name}/${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.log_key_arn
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
  }
}

# The role that starts a task: pull its image, write its log, read its secrets.
resource "aws_iam_role" "start" {
  for_each = local.tiers

  name               = "${var.name}-${each.key}-start"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

data "aws_iam_policy_document" "start" {
  for_each = local.tiers

  statement {
    sid       = "Login"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    sid       = "Pull"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = ["arn:aws:ecr:${var.region}:*:repository/qsm-ai/*"]
  }

  statement {
    sid       = "Log"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.tier[each.key].arn}:*"]
  }

  dynamic "statement" {
    for_each = length(each.value.secrets) > 0 ? [1] : []
    content {
      sid       = "Secret"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [for secret in values(each.value.secrets) : trimsuffix(secret, local.password_of)]
    }
  }

  dynamic "statement" {
    for_each = length(each.value.secrets) > 0 ? [1] : []
    content {
      sid       = "SecretKey"
      actions   = ["kms:Decrypt"]
      resources = [var.database.key_arn]
    }
  }
}

resource "aws_iam_role_policy" "start" {
  for_each = local.tiers

  name   = "start"
  role   = aws_iam_role.start[each.key].id
  policy = data.aws_iam_policy_document.start[each.key].json
}

# The role that a task has: the bucket for backend and workers, and for the frontend nothing.
resource "aws_iam_role" "task" {
  for_each = local.tiers

  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

data "aws_iam_policy_document" "bucket" {
  statement {
    sid       = "Objects"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["${var.bucket_arn}/objects/*"]
  }

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [var.bucket_arn]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["objects", "objects/*"]
    }
  }

  statement {
    sid       = "Key"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [var.bucket_key_arn]
  }
}

resource "aws_iam_role_policy" "bucket" {
  for_each = toset(["backend", "worker"])

  name   = "bucket"
  role   = aws_iam_role.task[each.key].id
  policy = data.aws_iam_policy_document.bucket.json
}

resource "aws_security_group" "tier" {
  for_each = local.tiers

  name_prefix = "${var.name}-${each.key}-"
  description = "Tasks of the ${each.key}"
  vpc_id      = var.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "door" {
  for_each = local.doors

  security_group_id            = aws_security_group.tier[each.key].id
  description                  = "the load balancer"
  referenced_security_group_id = aws_security_group.load_balancer.id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

resource "aws_vpc_security_group_ingress_rule" "frontend" {
  security_group_id            = aws_security_group.tier["backend"].id
  description                  = "the frontend"
  referenced_security_group_id = aws_security_group.tier["frontend"].id
  ip_protocol                  = "tcp"
  from_port                    = 8000
  to_port                      = 8000
}

resource "aws_vpc_security_group_egress_rule" "inside" {
  for_each = local.tiers

  security_group_id = aws_security_group.tier[each.key].id
  description       = "the other tiers and the database"
  cidr_ipv4         = var.vpc_cidr
  ip_protocol       = "tcp"
  from_port         = 1024
  to_port           = 65535
}

resource "aws_vpc_security_group_egress_rule" "https" {
  for_each = local.tiers

  security_group_id = aws_security_group.tier[each.key].id
  description       = "AWS's own services: registry, logs, secrets, S3"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_ecs_task_definition" "tier" {
  for_each = local.tiers

  family                   = "${var.name}-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = each.value.cpu
  memory                   = each.value.memory
  execution_role_arn       = aws_iam_role.start[each.key].arn
  task_role_arn            = aws_iam_role.task[each.key].arn

  runtime_platform {
    cpu_architecture        = "X86_64"
    operating_system_family = "LINUX"
  }

  ephemeral_storage {
    size_in_gib = 40
  }

  volume {
    name = "tmp"
  }

  volume {
    name = "data"
  }

  container_definitions = jsonencode([{
    name                   = each.key
    image                  = each.value.image
    entryPoint             = each.value.entry
    command                = each.value.command
    essential              = true
    readonlyRootFilesystem = true
    user                   = "10001:10001"
    stopTimeout            = 110
    portMappings = [
      for port in compact([each.value.port]) :
      { name = each.key, containerPort = tonumber(port), protocol = "tcp", appProtocol = "http" }
    ]
    environment = [for name, value in each.value.environment : { name = name, value = value }]
    secrets     = [for name, value in each.value.secrets : { name = name, valueFrom = value }]
    mountPoints = [
      { sourceVolume = "tmp", containerPath = "/tmp", readOnly = false },
      { sourceVolume = "data", containerPath = "/data", readOnly = false },
    ]
    linuxParameters = { initProcessEnabled = true, capabilities = { drop = ["ALL"] } }
    healthCheck = each.value.health == null ? null : {
      command     = ["CMD", "python", "-c", each.value.health]
      interval    = 15
      timeout     = 5
      retries     = 4
      startPeriod = 60
    }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.tier[each.key].name
        awslogs-region        = var.region
        awslogs-stream-prefix = each.key
      }
    }
  }])
}

resource "aws_ecs_service" "tier" {
  for_each = local.tiers

  name            = each.key
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.tier[each.key].arn
  desired_count   = each.value.min

  health_check_grace_period_seconds  = each.value.port == null ? null : 90
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  enable_execute_command             = false

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  # A job whose worker is taken away goes on with another.
  capacity_provider_strategy {
    capacity_provider = each.key == "worker" && var.worker.spot ? "FARGATE_SPOT" : "FARGATE"
    weight            = 1
  }

  network_configuration {
    subnets          = var.private_subnet_ids
    security_groups  = [aws_security_group.tier[each.key].id]
    assign_public_ip = false
  }

  dynamic "load_balancer" {
    for_each = compact([each.value.port])
    content {
      target_group_arn = aws_lb_target_group.tier[each.key].arn
      container_name   = each.key
      container_port   = load_balancer.value
    }
  }

  dynamic "service_connect_configuration" {
    for_each = compact([each.value.port])
    content {
      enabled   = true
      namespace = aws_service_discovery_http_namespace.this.arn

      service {
        port_name = each.key
        client_alias {
          port     = service_connect_configuration.value
          dns_name = "${each.key}.${var.name}"
        }
        # An upload of a scan takes as long as it takes.
        timeout {
          per_request_timeout_seconds = 0
          idle_timeout_seconds        = 900
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_lb_listener.secure, aws_lb_listener_rule.api, aws_ecs_cluster_capacity_providers.this]
}

resource "aws_appautoscaling_target" "tier" {
  for_each = local.tiers

  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.tier[each.key].name}"
  min_capacity       = each.value.min
  max_capacity       = each.value.max
}

resource "aws_appautoscaling_policy" "cpu" {
  for_each = local.tiers

  name               = "cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.tier[each.key].service_namespace
  scalable_dimension = aws_appautoscaling_target.tier[each.key].scalable_dimension
  resource_id        = aws_appautoscaling_target.tier[each.key].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = local.tiers[each.key].busy
    scale_in_cooldown  = 600
    scale_out_cooldown = 60
    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}
