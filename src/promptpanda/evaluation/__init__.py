"""How good estimators are: predicted transferability against measured transfers, published or our own."""
