"""Methods that choose which examples to train on: co-teaching, hard mining, CRUST, class-balanced sampling."""
