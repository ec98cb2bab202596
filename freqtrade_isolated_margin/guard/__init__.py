"""What watches: the monitor that reads again and again, the guard that judges by it, the alerts it sends."""
