-- Logits and z of the bridge are those of the model itself, within what its precision allows
SELECT bridge_error, bridge_error_allowed
FROM language_model
WHERE study = getvariable('study') AND (bridge_error <= bridge_error_allowed) IS NOT TRUE;
