# The database's password is turned over only when the tasks that were given it are made anew, too.

provider "aws" {
  region                      = "eu-central-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
  skip_requesting_account_id  = true
}

run "the_password_does_not_change_by_itself" {
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

  # The schedules come once a month, so this never does, unless they fail for a year.
  assert {
    condition     = aws_secretsmanager_secret_rotation.password.rotation_rules[0].automatically_after_days > 31 && !aws_secretsmanager_secret_rotation.password.rotate_immediately
    error_message = "RDS turns the password over every week, and running tasks cannot connect any more."
  }
}

run "whoever_has_the_password_is_made_anew_after_it_has_changed" {
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
    domain                  = "qsm.example.org"
    certificate_arn         = "arn:aws:acm:eu-central-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"
    allowed_cidrs           = ["192.0.2.0/24"]
    backend                 = { cpu = 1024, memory = 4096, min = 1, max = 6 }
    worker                  = { cpu = 4096, memory = 8192, min = 1, max = 6, spot = false }
    log_user_key_secret_arn = null

    rate_limit_storage_secret_arn = null

    images = {
      backend  = "example.org/qsm-ai/fastapi-be@sha256:0000"
      frontend = "example.org/qsm-ai/streamlit-fe@sha256:0000"
    }

    oidc               = null
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
    condition = toset([
      for tier, task in aws_ecs_task_definition.tier : tier
      if contains(jsondecode(task.container_definitions)[0].secrets[*].name, "PGPASSWORD")
    ]) == setsubtract(keys(local.turnover), ["password"])
    error_message = "A tier keeps a password that is no longer good."
  }

  assert {
    condition = alltrue([
      for name, schedule in aws_scheduler_schedule.turnover :
      endswith(schedule.target[0].arn, name == "password" ? ":secretsmanager:rotateSecret" : ":ecs:updateService") &&
      schedule.flexible_time_window[0].mode == "OFF" && schedule.schedule_expression_timezone == "UTC"
    ])
    error_message = "A schedule does something else, or at any time."
  }

  # Same hour of the same days; the first minute after that of the password.
  assert {
    condition = alltrue([
      for name, schedule in aws_scheduler_schedule.turnover :
      split(" ", schedule.schedule_expression)[1] == "3" &&
      endswith(schedule.schedule_expression, " 3 ? * 1#1 *)") &&
      tonumber(regex("cron\\((\\d+)", schedule.schedule_expression)[0]) == (name == "password" ? 0 : 5)
    ])
    error_message = "Tasks are made anew before the password has changed, or long after."
  }

  assert {
    condition     = jsondecode(aws_scheduler_schedule.turnover["password"].target[0].input).SecretId == var.database.secret_arn
    error_message = "Another secret is turned over."
  }
}
