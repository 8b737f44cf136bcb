-- faithfulness is (m_circuit - m_empty) / (m_full - m_empty), and the circuit of all edges is the
-- model
SELECT task, ranking, ranked_by, seed, edge_fraction, m_circuit, m_empty, m_full, faithfulness
FROM circuit_faithfulness
WHERE study = getvariable('study') AND (
    abs(faithfulness * (m_full - m_empty) - (m_circuit - m_empty))
    <= 1e-6 * (abs(m_circuit) + abs(m_full) + abs(m_empty))
    AND (edge_fraction < 1 OR abs(faithfulness - 1) <= 1e-3)
) IS NOT TRUE;
