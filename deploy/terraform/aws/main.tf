# The service on AWS: backend and frontend on Fargate behind one load balancer, Triton on EKS GPU nodes, files in S3,
# jobs in RDS. Everything but the load balancer lives in private subnets.

# Not those that must be asked for: local zones have no load balancers.
data "aws_availability_zones" "here" {
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  name  = "qsm-${var.environment}"
  zones = slice(data.aws_availability_zones.here.names, 0, 2)
}

module "log_key" {
  source = "./modules/log_key"

  name = local.name
}

module "network" {
  source = "./modules/network"

  name               = local.name
  cidr               = var.vpc_cidr
  zones              = local.zones
  log_retention_days = var.log_retention_days
  log_key_arn        = module.log_key.arn
}

module "storage" {
  source = "./modules/storage"

  name           = local.name
  retention_days = var.retention_days
  force_destroy  = var.force_destroy
}

module "database" {
  source = "./modules/database"

  name                = local.name
  vpc_id              = module.network.vpc_id
  subnet_ids          = module.network.private_subnet_ids
  client_group_ids    = module.services.backend_security_group_ids
  instance_class      = var.database.instance_class
  storage_gb          = var.database.storage_gb
  multi_az            = var.database.multi_az
  deletion_protection = var.database.deletion_protection
}

module "triton" {
  source = "./modules/triton"

  name               = local.name
  vpc_id             = module.network.vpc_id
  subnet_ids         = module.network.private_subnet_ids
  client_group_ids   = module.services.backend_security_group_ids
  admin_cidrs        = var.cluster_admin_cidrs
  log_retention_days = var.log_retention_days
  log_key_arn        = module.log_key.arn
  gpu                = var.gpu
}

module "services" {
  source = "./modules/services"

  name               = local.name
  region             = var.region
  vpc_id             = module.network.vpc_id
  vpc_cidr           = var.vpc_cidr
  public_subnet_ids  = module.network.public_subnet_ids
  private_subnet_ids = module.network.private_subnet_ids
  domain             = var.domain
  certificate_arn    = var.certificate_arn
  allowed_cidrs      = var.allowed_cidrs
  images             = var.images
  backend            = var.backend
  worker             = var.worker
  oidc               = var.oidc

  log_user_key_secret_arn       = var.log_user_key_secret_arn
  rate_limit_storage_secret_arn = var.rate_limit_storage_secret_arn

  triton_address = module.triton.grpc_address
  bucket         = module.storage.bucket
  bucket_arn     = module.storage.bucket_arn
  bucket_key_arn = module.storage.key_arn
  log_bucket     = module.storage.log_bucket
  database = {
    host       = module.database.host
    name       = module.database.name
    secret_arn = module.database.secret_arn
    key_arn    = module.database.key_arn
  }
  log_retention_days = var.log_retention_days
  log_key_arn        = module.log_key.arn
}

module "waf" {
  source = "./modules/waf"
  count  = var.waf.enabled ? 1 : 0

  name                   = local.name
  load_balancer_arn      = module.services.load_balancer_arn
  requests_per_5_minutes = var.waf.requests_per_5_minutes
}

module "observability" {
  source = "./modules/observability"

  name               = local.name
  alarm_email        = var.alarm_email
  monthly_budget_usd = var.monthly_budget_usd
  load_balancer      = module.services.load_balancer_metric_name
  backend_group      = module.services.backend_target_group_metric_name
  database_id        = module.database.identifier
}
