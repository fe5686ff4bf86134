# The database's password is turned over once a month, and the tasks that have it are made anew right after: ECS reads a
# secret only when a task starts. Connections that are open go on; for a few minutes a new one may be refused.

locals {
  # The first Sunday of the month, three o'clock. A rotation takes about a minute. The second redeployment is for one that took longer: it costs nothing but new tasks.
  turnover = {
    password = {
      when   = "cron(0 3 ? * 1#1 *)"
      what   = "secretsmanager:rotateSecret"
      change = { SecretId = var.database.secret_arn }
    }
    backend = {
      when   = "cron(5,35 3 ? * 1#1 *)"
      what   = "ecs:updateService"
      change = { Cluster = aws_ecs_cluster.this.arn, Service = aws_ecs_service.tier["backend"].name, ForceNewDeployment = true }
    }
    worker = {
      when   = "cron(5,35 3 ? * 1#1 *)"
      what   = "ecs:updateService"
      change = { Cluster = aws_ecs_cluster.this.arn, Service = aws_ecs_service.tier["worker"].name, ForceNewDeployment = true }
    }
  }
}

data "aws_iam_policy_document" "assume_turnover" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "turnover" {
  name               = "${var.name}-turnover"
  assume_role_policy = data.aws_iam_policy_document.assume_turnover.json
}

data "aws_iam_policy_document" "turnover" {
  statement {
    sid       = "Password"
    actions   = ["secretsmanager:RotateSecret"]
    resources = [var.database.secret_arn]
  }

  statement {
    sid       = "Tasks"
    actions   = ["ecs:UpdateService"]
    resources = [for tier in ["backend", "worker"] : aws_ecs_service.tier[tier].id]
  }

  # Secret and schedules are encrypted with it.
  statement {
    sid       = "Key"
    actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"]
    resources = [var.database.key_arn]
  }
}

resource "aws_iam_role_policy" "turnover" {
  name   = "turnover"
  role   = aws_iam_role.turnover.id
  policy = data.aws_iam_policy_document.turnover.json
}

resource "aws_scheduler_schedule" "turnover" {
  for_each = local.turnover

  name                         = "${var.name}-turnover-${each.key}"
  schedule_expression          = each.value.when
  schedule_expression_timezone = "UTC"
  kms_key_arn                  = var.database.key_arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "arn:aws:scheduler:::aws-sdk:${each.value.what}"
    role_arn = aws_iam_role.turnover.arn
    input    = jsonencode(each.value.change)
  }

  depends_on = [aws_iam_role_policy.turnover]
}
