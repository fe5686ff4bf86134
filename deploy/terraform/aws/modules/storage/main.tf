# Uploads and results (own key, no public access, TLS only, deleted by age), and a bucket for access logs.

data "aws_caller_identity" "me" {}

resource "aws_kms_key" "this" {
  description             = "${var.name}: scans and maps"
  enable_key_rotation     = true
  deletion_window_in_days = 14
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}-scans"
  target_key_id = aws_kms_key.this.key_id
}

resource "aws_s3_bucket" "scans" {
  bucket        = "${var.name}-scans-${data.aws_caller_identity.me.account_id}"
  force_destroy = var.force_destroy
}

resource "aws_s3_bucket" "logs" {
  bucket        = "${var.name}-logs-${data.aws_caller_identity.me.account_id}"
  force_destroy = var.force_destroy
}

locals {
  buckets = {
    scans = aws_s3_bucket.scans
    logs  = aws_s3_bucket.logs
  }
  log_writers = {
    door  = "logdelivery.elasticloadbalancing.amazonaws.com"
    scans = "logging.s3.amazonaws.com"
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each = local.buckets

  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = local.buckets

  bucket = each.value.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "scans" {
  bucket = aws_s3_bucket.scans.id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.this.arn
    }
  }
}

# Load balancers can write access logs to buckets with S3's own keys only.
resource "aws_s3_bucket_server_side_encryption_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

# Not versioned on purpose: a deleted scan must leave no byte behind.
resource "aws_s3_bucket_versioning" "scans" {
  bucket = aws_s3_bucket.scans.id
  versioning_configuration {
    status = "Disabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "scans" {
  bucket = aws_s3_bucket.scans.id

  rule {
    id     = "delete-by-age"
    status = "Enabled"
    filter {}
    expiration {
      days = var.retention_days
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id

  rule {
    id     = "delete-by-age"
    status = "Enabled"
    filter {}
    expiration {
      days = 90
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

# Who fetched what; objects bear the ids of jobs, never names of patients.
resource "aws_s3_bucket_logging" "scans" {
  bucket        = aws_s3_bucket.scans.id
  target_bucket = aws_s3_bucket.logs.id
  target_prefix = "scans/"
  depends_on    = [aws_s3_bucket_policy.this]
}

data "aws_iam_policy_document" "tls_only" {
  for_each = local.buckets

  statement {
    sid     = "TlsOnly"
    effect  = "Deny"
    actions = ["s3:*"]
    resources = [
      each.value.arn,
      "${each.value.arn}/*",
    ]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  # Who may write there, each below its own prefix.
  dynamic "statement" {
    for_each = each.key == "logs" ? local.log_writers : {}
    content {
      sid       = "Logs${title(statement.key)}"
      actions   = ["s3:PutObject"]
      resources = ["${each.value.arn}/${statement.key}/*"]
      principals {
        type        = "Service"
        identifiers = [statement.value]
      }
      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [data.aws_caller_identity.me.account_id]
      }
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  for_each = local.buckets

  bucket     = each.value.id
  policy     = data.aws_iam_policy_document.tls_only[each.key].json
  depends_on = [aws_s3_bucket_public_access_block.this]
}
