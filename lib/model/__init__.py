"""The network, its encoder's weights and the device it runs on."""
