"""Second derivatives of a score: products with its Hessian, eigenvalues and closed forms."""
