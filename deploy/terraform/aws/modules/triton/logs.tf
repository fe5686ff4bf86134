# Where Fluent Bit (deploy/kubernetes/cluster/logs) sends what pods write, and what it may do there: add lines.

resource "aws_cloudwatch_log_group" "pods" {
  name              = "/${var.name}/pods"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.log_key_arn
}

data "aws_iam_policy_document" "logs" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
    resources = ["${aws_cloudwatch_log_group.pods.arn}:*"]
  }
}

resource "aws_iam_role" "logs" {
  name               = "${var.name}-pod-logs"
  assume_role_policy = data.aws_iam_policy_document.pod.json
}

resource "aws_iam_role_policy" "logs" {
  name   = "write"
  role   = aws_iam_role.logs.id
  policy = data.aws_iam_policy_document.logs.json
}

resource "aws_eks_pod_identity_association" "logs" {
  cluster_name    = aws_eks_cluster.this.name
  namespace       = "qsm-ai-logs"
  service_account = "fluent-bit"
  role_arn        = aws_iam_role.logs.arn
}
