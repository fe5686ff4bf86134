# One door: /api/*, its documentation, /healthz and /readyz to the backend, everything else to the frontend.

resource "aws_security_group" "load_balancer" {
  name_prefix = "${var.name}-door-"
  description = "HTTPS from the networks that may, to the two tiers"
  vpc_id      = var.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "web" {
  for_each = {
    for pair in setproduct(var.allowed_cidrs, [80, 443]) : "${pair[0]}-${pair[1]}" => { cidr = pair[0], port = pair[1] }
  }

  security_group_id = aws_security_group.load_balancer.id
  description       = "allowed network"
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
}

resource "aws_vpc_security_group_egress_rule" "tiers" {
  for_each = { backend = 8000, frontend = 8501 }

  security_group_id            = aws_security_group.load_balancer.id
  description                  = each.key
  referenced_security_group_id = aws_security_group.tier[each.key].id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_lb" "this" {
  name               = var.name
  load_balancer_type = "application"
  subnets            = var.public_subnet_ids
  security_groups    = [aws_security_group.load_balancer.id]

  drop_invalid_header_fields = true
  enable_deletion_protection = false
  # Longer than a request may wait for its result (300 s), while no byte flows.
  idle_timeout = 330

  access_logs {
    bucket  = var.log_bucket
    prefix  = "door"
    enabled = true
  }
}

resource "aws_lb_target_group" "tier" {
  for_each = {
    backend  = { port = 8000, path = "/healthz", sticky = false }
    frontend = { port = 8501, path = "/_stcore/health", sticky = true }
  }

  name                 = "${var.name}-${each.key}"
  vpc_id               = var.vpc_id
  target_type          = "ip"
  protocol             = "HTTP"
  port                 = each.value.port
  deregistration_delay = 60

  health_check {
    path                = each.value.path
    interval            = 15
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 4
  }

  # A Streamlit session lives in the memory of one task.
  stickiness {
    type            = "lb_cookie"
    enabled         = each.value.sticky
    cookie_duration = 86400
  }
}

resource "aws_lb_listener" "plain" {
  load_balancer_arn = aws_lb.this.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type = "redirect"
    redirect {
      protocol    = "HTTPS"
      port        = "443"
      status_code = "HTTP_301"
    }
  }
}

resource "aws_lb_listener" "secure" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.tier["frontend"].arn
  }
}

resource "aws_lb_listener_rule" "api" {
  listener_arn = aws_lb_listener.secure.arn
  priority     = 10

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.tier["backend"].arn
  }

  condition {
    path_pattern {
      values = ["/api/*", "/healthz", "/readyz"]
    }
  }
}

# A condition takes five values, so the API's documentation has a rule of its own.
resource "aws_lb_listener_rule" "documentation" {
  listener_arn = aws_lb_listener.secure.arn
  priority     = 20

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.tier["backend"].arn
  }

  condition {
    path_pattern {
      values = ["/docs", "/redoc", "/openapi.json"]
    }
  }
}

# What the private network scrapes is not for the world.
resource "aws_lb_listener_rule" "hidden" {
  listener_arn = aws_lb_listener.secure.arn
  priority     = 5

  action {
    type = "fixed-response"
    fixed_response {
      content_type = "text/plain"
      message_body = "Not found"
      status_code  = "404"
    }
  }

  condition {
    path_pattern {
      values = ["/metrics", "/v2", "/v2/*"]
    }
  }
}
