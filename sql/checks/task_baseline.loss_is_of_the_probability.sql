-- loss is -log of prob
SELECT task, prompt, loss, prob
FROM task_baseline
WHERE study = getvariable('study') AND prob > 1e-30 AND (abs(loss + ln(prob)) <= 1e-4 * (1 + loss)) IS NOT TRUE;
