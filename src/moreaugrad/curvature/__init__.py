"""Second derivatives of a score: products with its Hessian, eigenvalues, closed forms."""
