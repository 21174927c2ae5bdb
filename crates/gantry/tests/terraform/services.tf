# A service without a load balancer, as a user would declare it.
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

variable "image" { type = string }
variable "greeting" {
  type    = string
  default = "hello"
}
variable "desired" {
  type    = number
  default = 2
}
variable "grace" {
  type    = number
  default = 5
}

provider "aws" {
  region                  = "us-east-1"
  skip_metadata_api_check = true
}

resource "aws_ecs_task_definition" "web" {
  family       = "tf-web"
  network_mode = "host"
  container_definitions = jsonencode([{
    name        = "web"
    image       = var.image
    memory      = 16
    essential   = true
    stopTimeout = 2
    command     = ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.1; done"]
    environment = [{ name = "GREETING", value = var.greeting }]
    healthCheck = {
      command     = ["CMD-SHELL", "true"]
      interval    = 5
      timeout     = 2
      retries     = 1
      startPeriod = 0
    }
  }])
}

resource "aws_ecs_service" "web" {
  name                              = "tf-web"
  task_definition                   = aws_ecs_task_definition.web.arn
  desired_count                     = var.desired
  launch_type                       = "EC2"
  health_check_grace_period_seconds = var.grace
  enable_ecs_managed_tags           = true
  propagate_tags                    = "SERVICE"
  wait_for_steady_state             = true

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  ordered_placement_strategy {
    type  = "spread"
    field = "attribute:ecs.availability-zone"
  }

  placement_constraints {
    type       = "memberOf"
    expression = "attribute:ecs.os-type == linux"
  }

  tags = { made-by = "terraform" }
}

output "service" { value = aws_ecs_service.web.id }
