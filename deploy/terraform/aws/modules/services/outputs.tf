output "backend_security_group_ids" {
  description = "Security groups of the tasks that need database and Triton, by tier."
  value       = { for tier in ["backend", "worker"] : tier => aws_security_group.tier[tier].id }
}

output "load_balancer_arn" {
  description = "The load balancer."
  value       = aws_lb.this.arn
}

output "load_balancer_dns_name" {
  description = "Address of the load balancer."
  value       = aws_lb.this.dns_name
}

output "load_balancer_metric_name" {
  description = "How CloudWatch names the load balancer."
  value       = aws_lb.this.arn_suffix
}

output "backend_target_group_metric_name" {
  description = "How CloudWatch names the backend's target group."
  value       = aws_lb_target_group.tier["backend"].arn_suffix
}

output "log_groups" {
  description = "Log groups by tier."
  value       = { for tier, group in aws_cloudwatch_log_group.tier : tier => group.name }
}
